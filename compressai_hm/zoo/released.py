"""Weights that ship inside the package, in half precision.

::

    weights/NAME-QUALITY.pth   weights of one quality, and its bottleneck's tables
    weights/NAME.pth           of an entry with one set for every quality
    weights/NAME-tables.npz    the Gaussian's tables, the same at every quality; of an
                               entry with one set of weights its bottleneck's, too
    weights/NAME-METRIC.npz    what training for another metric changed in NAME.pth
    weights/NAME.npz           of an entry without: what training on changed in
                               another's NAME.pth, as NAME-METRIC.npz then does
    weights/SHA256SUMS         of every file; for `sha256sum --check`

Tables are stored because streams are coded with them, and another machine's floating
point might make others.
"""

import hashlib
import io
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..codecs.entropy.coding_tables import is_table
from ..codecs.files import write_whole
from ..codecs.models import ENTRIES

WEIGHTS = Path(__file__).parent / "weights"
SUMS = "SHA256SUMS"
RELEASED: tuple[str, ...] = tuple(n for n, entry in ENTRIES.items() if entry.released)
"""Zoo names that ``pretrained=True`` knows."""

_SHARED = "gaussian_conditional."
_MANY = 1000
"""Weights in a tensor whose changes are stored coarsely."""


def load_released(name: str, quality: int, metric: str = "mse") -> dict[str, Tensor]:
    """The state dict of a released model.

    Raises:
        RuntimeError: If there are no such weights, or a file is not the released one.
    """
    if name not in RELEASED:
        raise RuntimeError(
            f"no HM weights of {name} are released (there are those of "
            f"{', '.join(RELEASED) or 'no model'} yet); pretrained='base' starts from "
            "CompressAI's"
        )
    if metric not in ENTRIES[name].released:
        raise RuntimeError(
            f"no HM weights of {name} are released for {metric}; there are those for "
            f"{', '.join(ENTRIES[name].released)}"
        )
    weights = _load_stored(name, quality)
    if file := changes_of(name, metric):
        changes = dict(np.load(_read(file)))
        if changes.pop("of").tobytes() != _digest_of(name):
            raise RuntimeError(
                f"{file} changes other weights than {file_of(name, quality)}: make it "
                "again (tools/train_weights.py), or install the package again"
            )
        weights = _changed(weights, changes)
    return weights


def _load_stored(name: str, quality: int) -> dict[str, Tensor]:
    """Weights without what changes them, and tables."""
    tables = np.load(_read(f"{_root(name)}-tables.npz"))
    weights = torch.load(_read(file_of(name, quality)), weights_only=True)
    return {**{key: torch.from_numpy(tables[key]) for key in tables}, **weights}


def _changed(
    weights: dict[str, Tensor], changes: dict[str, np.ndarray]
) -> dict[str, Tensor]:
    """Weights with what :func:`write_changes` stored."""
    steps, exponents = changes.pop("steps"), changes.pop("exponents")
    weights = {**weights, **{k: torch.from_numpy(v) for k, v in changes.items()}}
    keys = _changing(weights)
    parts = torch.from_numpy(steps).split([weights[key].numel() for key in keys])
    for key, part, exponent in zip(keys, parts, exponents, strict=True):
        change = part.view_as(weights[key]).float() * 2.0 ** int(exponent)
        weights[key] = (weights[key].float() + change).half()
    return weights


def _digest_of(name: str) -> bytes:
    """Of the weights that changes are of."""
    return bytes.fromhex(_sums()[file_of(name, 1)])


def _changing(weights: dict[str, Tensor]) -> list[str]:
    """Names of the weights that training moves, in the order that they are stored."""
    return sorted(k for k, v in weights.items() if v.dtype == torch.half)


def write_changes(name: str, metric: str, net: nn.Module) -> None:
    """Makes a model, trained on from stored weights, the released one.

    What changed is stored to 8 bits, of large tensors to about a 16th of its deviation
    (to half of it, a codec of 15 % fewer bits had 8 % fewer), which makes a file of
    about a quarter of the weights'. Steps are powers of two, so that every machine adds
    up the same weights.

    Raises:
        ValueError: If its weights are not stored as changes, or the Gaussian's tables
            would be others.
    """
    file = changes_of(name, metric)
    if not file:
        raise ValueError(f"{name} has weights of its own: write_released makes them")
    base = _load_stored(name, 1)
    own = net.state_dict()
    exponents, steps = [], []
    for key in _changing(base):
        change = own[key].double() - base[key].double()
        fine = math.ceil(math.log2(max(float(change.abs().max()), 2**-30) / 127))
        if change.numel() >= _MANY:
            fine = max(fine, round(math.log2(max(float(change.std()), 2**-30) / 16)))
        exponents.append(fine)
        steps.append((change / 2.0**fine).round().to(torch.int8).flatten())
    changes = {"steps": torch.cat(steps).numpy(), "exponents": np.int8(exponents)}
    net = type(net).from_state_dict({**own, **_changed(base, dict(changes))})
    net.update(force=True)
    tables = {k: v for k, v in net.state_dict().items() if is_table(k)}
    if any(not torch.equal(base[k], tables[k]) for k in tables if _SHARED in k):
        raise ValueError(f"{file}: other Gaussian tables than {_root(name)}'s")
    changes |= {k: v.numpy() for k, v in tables.items() if _SHARED not in k}
    changes["of"] = np.frombuffer(_digest_of(name), np.uint8)
    with io.BytesIO() as f:
        np.savez_compressed(f, **changes)
        write_whole(f.getvalue(), WEIGHTS / file)
    write_sums()


SCHEME = "compressai_hm://"


def local_path(path: str | Path) -> Path:
    """A file's path; ``compressai_hm://NAME`` is that of one in the package."""
    if isinstance(path, str) and path.startswith(SCHEME):
        return WEIGHTS / path.removeprefix(SCHEME)
    return Path(path)


def file_of(name: str, quality: int) -> str:
    """The name of the file of weights."""
    one = ENTRIES[name].steps
    return f"{_root(name)}.pth" if one else f"{_root(name)}-{quality}.pth"


def changes_of(name: str, metric: str = "mse") -> str:
    """The name of the file of what changes them; empty where nothing does."""
    if metric != "mse":
        return f"{name}-{metric}.npz"
    return f"{name}.npz" if ENTRIES[name].changes else ""


def _root(name: str) -> str:
    """The entry whose file of weights is an entry's own, or is changed."""
    return ENTRIES[name].changes or name


def _read(file: str) -> io.BytesIO:
    path = WEIGHTS / file
    if not path.is_file():
        raise RuntimeError(f"{path} is missing: install the package again")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != _sums()[file]:
        raise RuntimeError(
            f"{path} is not the file that was released (its SHA-256 is another than in "
            f"{SUMS}): install the package again"
        )
    return io.BytesIO(data)


def _sums() -> dict[str, str]:
    lines = (WEIGHTS / SUMS).read_text(encoding="utf-8").splitlines()
    return {file: digest for digest, file in (line.split("  ") for line in lines)}


def rounded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in half precision; not the bounds, for a likelihood's 1e-9 would be 0."""
    return {
        key: value.half()
        if value.is_floating_point() and "bound" not in key and not is_table(key)
        else value
        for key, value in weights.items()
    }


def rounded_codec(net: nn.Module) -> dict[str, Tensor]:
    """A codec's weights in half precision, with the tables that they give."""
    weights = {k: v for k, v in net.state_dict().items() if not is_table(k)}
    weights = rounded(weights)
    net = type(net).from_state_dict({**net.state_dict(), **weights})
    net.update(force=True)
    tables = {k: v for k, v in net.state_dict().items() if is_table(k)}
    return {**weights, **tables}


def write_released(name: str, models: dict[int, nn.Module]) -> None:
    """Rounds models and makes them the released ones of their qualities.

    Of an entry with one set of weights, give one quality. Where changes of them are
    stored, make these again.

    Raises:
        ValueError: If they are stored as changes of another entry's.
    """
    if ENTRIES[name].changes:
        raise ValueError(f"{name} is stored as changes: write_changes makes them")
    shared: dict[str, Tensor] = {}
    for quality, net in models.items():
        weights = rounded_codec(net)
        every = bool(ENTRIES[name].steps)  # what is compressed is a fraction
        own = {
            k: v
            for k, v in weights.items()
            if is_table(k) and (every or k.startswith(_SHARED))
        }
        if shared and any(not torch.equal(own[k], shared[k]) for k in own):
            raise ValueError(f"quality {quality} has other Gaussian tables")
        shared = own
        weights = {
            key: value
            for key, value in weights.items()
            if key not in shared and not key.endswith(".mask")  # of masked convolutions
        }
        save(weights, WEIGHTS / file_of(name, quality))
    with io.BytesIO() as f:
        np.savez_compressed(f, **{key: value.numpy() for key, value in shared.items()})
        write_whole(f.getvalue(), WEIGHTS / f"{name}-tables.npz")
    write_sums()


def write_sums() -> None:
    """Brings SHA256SUMS up to date."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted([*WEIGHTS.glob("*.pth"), *WEIGHTS.glob("*.npz")])
    ]
    write_whole("".join(lines).encode(), WEIGHTS / SUMS)


def save(weights: dict[str, Tensor], path: Path) -> None:
    """Writes weights whole."""
    with io.BytesIO() as f:
        torch.save(weights, f)
        write_whole(f.getvalue(), path)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
