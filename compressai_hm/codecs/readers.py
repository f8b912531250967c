"""Readers: small files that give one stream another use.

A reader is a g_t, or a latent backbone, trained on a frozen stream. It is added to
streams that exist already, and changes no byte of them and no bit of x_hat.
"""

import hashlib
import io
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .adaptation import DynamicAdaptation
from .files import write_whole
from .human_machine import HumanMachineMixin
from .latent_backbone import LatentBackbone

SUFFIX = ".reader"
_KINDS = {"x_hat": DynamicAdaptation, "y_hat": LatentBackbone}


@dataclass(frozen=True)
class StreamReader:
    """What reads a stream beside people.

    Args:
        name: For people, and for choosing it.
        reads: "x_hat": it is a g_t and gives a picture. "y_hat": it is a latent
            backbone and gives a pyramid of features.
        stream: :func:`stream_of` the codec that it was trained on.
        net: The network.
    """

    name: str
    reads: str
    stream: str
    net: nn.Module

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
            "sha256": _digest(weights),
        }
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
        net = _KINDS[content["reads"]](**content["options"])
        net.load_state_dict(content["state_dict"])
        name, stream = str(content["name"]), str(content["stream"])
        whole = content["sha256"] == _digest(content["state_dict"])
    except (
        *(LookupError, TypeError, ValueError, RuntimeError, EOFError, OSError),
        pickle.UnpicklingError,
    ) as e:
        reason = (str(e) or type(e).__name__).splitlines()[0]
        raise ValueError(f"{path} is no reader: {reason}") from e
    if not whole:
        raise ValueError(f"{path} is damaged: its weights do not match their hash")
    return StreamReader(name, content["reads"], stream, net.eval())


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
    folders = list(folders)
    found = {path: load_reader(path) for path in reader_files(folders)}
    named = {path: reader for path, reader in found.items() if reader.name == name}
    if len(named) != 1:
        there = ", ".join(map(str, named)) or sorted({r.name for r in found.values()})
        what = "several readers" if named else "no reader"
        raise ValueError(
            f"there is {what} {name!r} in {', '.join(map(str, folders))} (found "
            f"{there}); give its file"
        )
    return next(iter(named.values()))


def reader_files(places: Iterable[str | Path]) -> list[Path]:
    """The reader files among files and in folders."""
    found: list[Path] = []
    for place in map(Path, places):
        found += sorted(place.rglob(f"*{SUFFIX}")) if place.is_dir() else [place]
    return found


def stream_of(codec: HumanMachineMixin, reads: str) -> str:
    """Names the streams of a codec as far as a reader depends on them.

    Args:
        codec: The codec.
        reads: "y_hat", which depends on the entropy part, or "x_hat": on g_s as well.
    """
    entropy = codec.latent_coder().fingerprint().hex()
    return entropy if reads == "y_hat" else f"{entropy}-{_digest(codec.g_s)[:8]}"


def _digest(weights: nn.Module | dict[str, Tensor]) -> str:
    if isinstance(weights, nn.Module):
        weights = weights.state_dict()
    sha = hashlib.sha256()
    for key, value in sorted(weights.items()):
        sha.update(key.encode())
        sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
