"""Readers: small files with networks that read existing streams.

A reader is a g_t, or a latent backbone, trained on the streams of a frozen codec. It
changes no byte of a stream and no bit of x_hat.
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
from ..entropy.coding_tables import add_tensors
from ..io.files import files_in, write_whole
from ..models.adaptation import DynamicAdaptation
from ..models.human_machine import HumanMachineMixin
from ..models.latent_backbone import LatentBackbone

SUFFIX = ".reader"
_KINDS = {"x_hat": DynamicAdaptation, "y_hat": LatentBackbone}
_MOST = {"width": 1024, "widths": 1024, "downscale": 4, "depths": 64}
"""Largest options in a file, so that a forged file cannot allocate or compute much."""


def check_name(name: str) -> None:
    """Checks that a reader's name can be part of file names.

    Args:
        name: The name.

    Raises:
        ValueError: If it cannot.
    """
    plain = isinstance(name, str) and re.fullmatch(r"\w[\w.-]{0,63}", name)
    if not plain or name in ("human", "machine"):
        raise ValueError(
            f"{name!r} is no name for a reader: take letters, digits, '.', '-' and "
            "'_', at most 64, and neither human nor machine, which decoded files have"
        )


@dataclass(frozen=True)
class StreamReader:
    """A network that reads streams.

    Args:
        name: Its name, which becomes part of file names.
        reads: "x_hat" for a g_t, which gives a picture, or "y_hat" for a latent
            backbone, which gives a pyramid of features.
        stream: Result of :func:`identify_stream` for the codec of its training.
        net: The network.

    Raises:
        ValueError: If the name is invalid.
    """

    name: str
    reads: str
    stream: str
    net: nn.Module

    def __post_init__(self) -> None:
        check_name(self.name)

    def check(self, codec: HumanMachineMixin) -> None:
        """Checks that the reader was trained on the streams of a codec.

        Args:
            codec: The codec.

        Raises:
            ValueError: If it was trained on other streams.
        """
        stream = identify_stream(codec, self.reads)
        if stream != self.stream:
            raise ValueError(
                f"reader {self.name!r} was trained on streams of {self.stream}, and "
                f"these are of {stream}: take the weights that it was trained with"
            )

    def digest(self) -> str:
        """Returns a digest of the network's weights."""
        return _digest_network(self.net)

    def save(self, path: str | Path) -> None:
        """Writes the reader to a file.

        Args:
            path: The file.
        """
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
        content["sha256"] = _digest_content(content)
        with io.BytesIO() as f:
            torch.save(content, f)
            write_whole(f.getvalue(), path)


def load_reader(path: str | Path) -> StreamReader:
    """Reads a reader from its file.

    Args:
        path: The file.

    Returns:
        The reader, whose network is in eval mode on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or is no reader.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such reader")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["sha256"] != _digest_content(content):
            raise ValueError("it is damaged: its content does not match its hash")
        net = _build(content["reads"], content["options"], content["state_dict"])
        name, stream = str(content["name"]), str(content["stream"])
        return StreamReader(name, content["reads"], stream, net.eval().float())
    except (
        *(LookupError, TypeError, ValueError, RuntimeError, AttributeError),
        *(EOFError, OSError, pickle.UnpicklingError),
    ) as e:
        raise ValueError(f"{path} is no reader: {why_unreadable(e)}") from e


def _build(reads: str, options: dict, weights: dict[str, Tensor]) -> nn.Module:
    """Builds the network without allocating more than the weights."""
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
    """Finds a reader by its name, or by its file.

    Args:
        name: Its name, or the path of its file.
        folders: Folders in which ``*.reader`` files are searched, with their folders.

    Returns:
        The reader.

    Raises:
        ValueError: If there is no such reader, or more than one.
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
    """Returns the given files and the reader files of folders.

    Args:
        places: Files and folders.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            files += [path for path in files_in(place) if path.suffix == SUFFIX]
        else:
            files.append(place)
    return files


def identify_stream(codec: HumanMachineMixin, reads: str) -> str:
    """Returns an identifier of a codec's streams for readers.

    Args:
        codec: The codec.
        reads: "y_hat", which depends on the entropy part, or "x_hat", which depends on
            g_s as well.
    """
    entropy = codec.latent_coder().fingerprint().hex()
    return (
        entropy if reads == "y_hat" else f"{entropy}-{_digest_network(codec.g_s)[:8]}"
    )


_KNOWN: dict[str, str] = {}
_MOST_KNOWN = 16


def _digest_network(net: nn.Module) -> str:
    """Computes a digest of present weights, and caches it, because SHA-256 is slow."""
    weights = net.state_dict()
    fast = xxhash.xxh3_128(repr(list(weights)).encode())
    add_tensors(fast, weights.values())
    key = fast.hexdigest()
    digest = _KNOWN.get(key)
    if digest is None:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        digest = _KNOWN[key] = _digest(weights)
    return digest


def _digest_content(content: dict) -> str:
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
