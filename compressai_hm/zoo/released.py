"""Weights that ship inside the package, in half precision.

::

    weights/NAME.npz           an entry's one set of weights for every quality, with the
                               tables that its streams are coded with
    weights/NAME-METRIC.npz    the same, trained for another metric than "mse"
    weights/*.pth              codecs and detectors that configs name
    weights/NAME.people.pth    the person detector on an entry's latents, without its
                               first stages
    weights/*.people.reader    a reader in their place for each metric's weights
    weights/SHA256SUMS         of every file; for `sha256sum --check`

Tables are stored because another machine's floating point might make others.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..entropy.coding_tables import is_table
from ..io.files import write_whole
from ..models.entries import ENTRIES

WEIGHTS = Path(__file__).parent / "weights"
SUMS = "SHA256SUMS"
_SUFFIXES = (".npz", ".pth", ".reader")
RELEASED: tuple[str, ...] = tuple(n for n, entry in ENTRIES.items() if entry.released)
"""Zoo names with released weights, for ``pretrained=True``."""

SCHEME = "compressai_hm://"


def load_released(name: str, metric: str = "mse") -> dict[str, Tensor]:
    """Loads the state dict of a released model.

    Args:
        name: A zoo name.
        metric: What the weights were trained for. Defaults to "mse".

    Returns:
        Weights in half precision, and tables.

    Raises:
        RuntimeError: If there are no such weights, or their file is damaged.
    """
    if name not in RELEASED:
        raise RuntimeError(
            f"no HM weights of {name} are released (there are those of "
            f"{', '.join(RELEASED) or 'no model'} yet); pretrained='base' starts from "
            "CompressAI's"
        )
    if metric not in ENTRIES[name].released:
        raise RuntimeError(
            f"no HM weights of {name} are released for {metric!r}; there are those for "
            f"{', '.join(ENTRIES[name].released)}"
        )
    arrays = np.load(_read(weights_file(name, metric)))
    return {key: torch.from_numpy(arrays[key]) for key in arrays}


def local_path(path: str | Path) -> Path:
    """Returns the path of a file, which may be in the package.

    Args:
        path: A path, or ``compressai_hm://NAME`` for a file in the package.
    """
    if isinstance(path, str) and path.startswith(SCHEME):
        return WEIGHTS / path.removeprefix(SCHEME)
    return Path(path)


def weights_file(name: str, metric: str = "mse") -> str:
    """Returns the name of the file of an entry's weights.

    Args:
        name: A zoo name.
        metric: What the weights were trained for. Defaults to "mse".
    """
    return f"{name}.npz" if metric == "mse" else f"{name}-{metric}.npz"


def _read(file: str) -> io.BytesIO:
    path = WEIGHTS / file
    if not path.is_file():
        raise RuntimeError(f"{path} is missing: install the package again")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != _sums().get(file):
        raise RuntimeError(
            f"{path} is not the file that was released (its SHA-256 is another than in "
            f"{SUMS}): install the package again"
        )
    return io.BytesIO(data)


def _sums() -> dict[str, str]:
    lines = (WEIGHTS / SUMS).read_text(encoding="utf-8").splitlines()
    return {file: digest for digest, file in (line.split("  ") for line in lines)}


def rounded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rounds weights to half precision, except tables and bounds: 1e-9 would be 0.

    Args:
        weights: A state dict.

    Returns:
        The rounded state dict.
    """
    return {
        key: value.half()
        if value.is_floating_point() and "bound" not in key and not is_table(key)
        else value
        for key, value in weights.items()
    }


def rounded_codec(net: nn.Module) -> dict[str, Tensor]:
    """Rounds a codec's weights to half precision, and makes their tables.

    Args:
        net: The codec; it is not changed.

    Returns:
        Rounded weights, and the tables of the rounded weights.
    """
    weights = {k: v for k, v in net.state_dict().items() if not is_table(k)}
    weights = rounded(weights)
    net = type(net).from_state_dict({**net.state_dict(), **weights})
    net.update(force=True)
    tables = {k: v for k, v in net.state_dict().items() if is_table(k)}
    return {**weights, **tables}


def write_released(name: str, net: nn.Module, metric: str = "mse") -> None:
    """Rounds a model and writes it as the released one of an entry.

    Args:
        name: Zoo name of an entry with one set of weights for every quality.
        net: The trained model.
        metric: What it was trained for. Defaults to "mse".
    """
    weights = rounded_codec(net)
    with io.BytesIO() as f:
        np.savez_compressed(
            f,
            **{
                key: value.numpy()
                for key, value in weights.items()
                if not key.endswith(".mask")  # of masked convolutions
            },
        )
        write_whole(f.getvalue(), WEIGHTS / weights_file(name, metric))
    write_sums()


def write_sums() -> None:
    """Writes SHA256SUMS for the present files."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(p for p in WEIGHTS.iterdir() if p.suffix in _SUFFIXES)
    ]
    write_whole("".join(lines).encode(), WEIGHTS / SUMS)


def save(weights: dict[str, Any], path: Path) -> None:
    """Writes weights to a file and prints its size.

    Args:
        weights: A state dict, or a checkpoint with ``state_dict``.
        path: The file.
    """
    if "state_dict" in weights:
        weights = {**weights, "state_dict": _share_storage(weights["state_dict"])}
    else:
        weights = _share_storage(weights)
    with io.BytesIO() as f:
        torch.save(weights, f)
        write_whole(f.getvalue(), path)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def _share_storage(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies tensors to one storage per dtype: each storage costs a file 300 bytes."""
    shared: dict[str, Tensor] = {}
    for dtype in {value.dtype for value in weights.values()}:
        names = [name for name, value in weights.items() if value.dtype == dtype]
        flat = torch.cat([weights[name].flatten() for name in names])
        parts = flat.split([weights[name].numel() for name in names])
        for name, part in zip(names, parts, strict=True):
            shared[name] = part.view(weights[name].shape)
    return {name: shared[name] for name in weights}
