"""Readers: small files that give one stream another use.

A reader is a g_t, or a latent backbone, trained on a frozen stream. It is added to
streams that exist already, and changes no byte of them and no bit of x_hat.
"""

import hashlib
import io
import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from torch import Tensor, nn

from ..compat import why_unreadable
from .adaptation import DynamicAdaptation
from .entropy.coding_tables import add_tensors
from .files import files_in, write_whole
from .human_machine import HumanMachineMixin
from .latent_backbone import LatentBackbone

SUFFIX = ".reader"
_KINDS = {"x_hat": DynamicAdaptation, "y_hat": LatentBackbone}
_MOST = {"width": 1024, "downscale": 4, "in_channels": 4096, "depth": 64}
"""Of the options in a file: a forged one must not allocate or compute much."""


def check_name(name: str) -> None:
    """Raises ValueError if a reader's name cannot be part of file names."""
    plain = isinstance(name, str) and re.fullmatch(r"\w[\w.-]{0,63}", name)
    if not plain or name in ("human", "machine"):
        raise ValueError(
            f"{name!r} is no name for a reader: take letters, digits, '.', '-' and "
            "'_', at most 64, and neither human nor machine, which decoded files have"
        )


@dataclass(frozen=True)
class StreamReader:
    """What reads a stream beside people.

    Args:
        name: For people, and for choosing it; becomes part of file names.
        reads: "x_hat": it is a g_t and gives a picture. "y_hat": it is a latent
            backbone and gives a pyramid of features.
        stream: :func:`stream_of` the codec that it was trained on.
        net: The network.

    Raises:
        ValueError: If the name is none.
    """

    name: str
    reads: str
    stream: str
    net: nn.Module

    def __post_init__(self) -> None:
        check_name(self.name)

    def check(self, codec: HumanMachineMixin) -> None:
        """Raises ValueError if the codec's streams are not what it reads."""
        own = stream_of(codec, self.reads)
        if own != self.stream:
            raise ValueError(
                f"reader {self.name!r} was trained on streams of {self.stream}, and "
                f"these are of {own}: take the weights that it was trained with"
            )

    def save(self, path: str | Path) -> None:
        """Writes the file."""
        weights = self.net.state_dict()
        if isinstance(self.net, LatentBackbone):
            options = self.net.options
        else:
            options = DynamicAdaptation.options_from(weights)
        content = {
            "name": self.name,
            "reads": self.reads,
            "stream": self.stream,
            "options": options,
            "state_dict": {k: v.detach().cpu().clone() for k, v in weights.items()},
        }
        content["sha256"] = _digest_of_file(content)
        with io.BytesIO() as f:
            torch.save(content, f)
            write_whole(f.getvalue(), path)


def load_reader(path: str | Path) -> StreamReader:
    """A reader from its file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or no reader.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such reader")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["sha256"] != _digest_of_file(content):
            raise ValueError("it is damaged: its content does not match its hash")
        net = _build(content["reads"], content["options"], content["state_dict"])
        name, stream = str(content["name"]), str(content["stream"])
        return StreamReader(name, content["reads"], stream, net.eval())
    except (
        *(LookupError, TypeError, ValueError, RuntimeError, AttributeError),
        *(EOFError, OSError, pickle.UnpicklingError),
    ) as e:
        raise ValueError(f"{path} is no reader: {why_unreadable(e)}") from e


def _build(reads: str, options: dict, weights: dict[str, Tensor]) -> nn.Module:
    """The network, allocated only if the weights are its own."""
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        most = _MOST.get(name, 4096)
        if len(values) > 8 or not all(
            type(v) is int and 0 <= v <= most for v in values
        ):
            raise ValueError(f"its option {name} is {value!r}")
    with torch.device("meta"):
        net = _KINDS[reads](**options)
    net.load_state_dict(weights, assign=True)
    return net


def find_reader(name: str, folders: Iterable[str | Path]) -> StreamReader:
    """The reader of a name, or of a file.

    Args:
        name: Its name, or the path of its file.
        folders: Where ``*.reader`` files are looked for, with the folders in them.

    Raises:
        ValueError: If there is none, or several.
    """
    if Path(name).is_file():
        return load_reader(name)
    folders = [folder for folder in map(Path, folders) if folder.is_dir()]
    named, others = {}, []
    for path in reader_files(folders):
        try:
            reader = load_reader(path)
        except ValueError as e:
            others.append(str(e))
            continue
        if reader.name == name:
            named[path] = reader
        else:
            others.append(reader.name)
    if len(named) != 1:
        what = "several readers" if named else "no reader"
        there = ", ".join(map(str, named or sorted(others))) or "none"
        raise ValueError(
            f"there is {what} {name!r} in {', '.join(map(str, folders)) or '.'} (found "
            f"{there}); give its file"
        )
    return next(iter(named.values()))


def reader_files(places: Iterable[str | Path]) -> list[Path]:
    """The reader files among files and in folders."""
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            found += [path for path in files_in(place) if path.suffix == SUFFIX]
        else:
            found.append(place)
    return found


def stream_of(codec: HumanMachineMixin, reads: str) -> str:
    """Names the streams of a codec as far as a reader depends on them.

    Args:
        codec: The codec.
        reads: "y_hat", which depends on the entropy part, or "x_hat": on g_s as well.
    """
    entropy = codec.latent_coder().fingerprint().hex()
    return entropy if reads == "y_hat" else f"{entropy}-{_digest_of(codec.g_s)[:8]}"


_KNOWN: dict[str, str] = {}
_MOST_KNOWN = 16


def _digest_of(net: nn.Module) -> str:
    """Of present weights. SHA-256 is slow: it is taken once of those of some values."""
    weights = net.state_dict()
    fast = xxhash.xxh3_128(repr(list(weights)).encode())
    add_tensors(fast, weights.values())
    key = fast.hexdigest()
    found = _KNOWN.get(key)
    if found is None:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        found = _KNOWN[key] = _digest(weights)
    return found


def _digest_of_file(content: dict) -> str:
    sha = hashlib.sha256(_digest(content["state_dict"]).encode())
    for key in ("name", "reads", "stream", "options"):
        sha.update(repr(content[key]).encode())
    return sha.hexdigest()


def _digest(weights: dict[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for key, value in sorted(weights.items()):
        sha.update(key.encode())
        sha.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return sha.hexdigest()
