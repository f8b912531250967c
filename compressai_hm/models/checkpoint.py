"""Reading of weights that other programs write, and the format of our own files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..compat import why_unreadable
from ..entropy.mirrored_tables import with_metadata
from .human_machine import HumanMachineMixin, registered_name

_WRAPPERS = ("state_dict", "model_state_dict", "network", "model")
_KINDS = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"HMB": "a coded picture",
    b"HMC": "a coded picture",
    b"<": "a web page",
    b"": "empty",
}


@dataclass(frozen=True)
class Checkpoint:
    """Weights and the description of their model.

    Args:
        weights: Weights by key, without the prefixes of wrappers.
        architecture: Registered name of the HM model. Defaults to None, unknown.
        options: ``args`` and ``kwargs`` of its constructor. Defaults to none.
        meta: MMEngine's description of the data set. Defaults to none.
    """

    weights: dict[str, Tensor]
    architecture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Returns the weights under a prefix, without it.

        If there are none, or the checkpoint is a codec's, it returns all weights: a
        codec may have a part of that name.

        Args:
            prefix: The prefix, such as "codec.".
        """
        weights = self.weights
        part = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
        if not part or any(key.startswith("g_a.") for key in weights):
            return weights
        return with_metadata(part, weights)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint; nothing in the file can run code.

    Args:
        path: The file.

    Returns:
        The checkpoint, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no weights; the message says what it is instead.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # unpickling other content raises almost anything
        with open(path, "rb") as f:
            raise ValueError(f"{path}: {_explain(f.read(8), e)}") from e
    try:
        return unwrap(loaded)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None


def _explain(start: bytes, error: Exception) -> str:
    for begins, kind in _KINDS.items():
        if start.startswith(begins) if begins else not start:
            return f"not a checkpoint: it is {kind}"
    return f"not a checkpoint: {why_unreadable(error)}"


def unwrap(loaded: Any) -> Checkpoint:
    """Extracts the weights from the content of a training program's file.

    The content is a state dict, or has one under "state_dict", "model_state_dict",
    "network" or "model". The prefixes of ``torch.compile`` ("_orig_mod."), DataParallel
    and AveragedModel ("module.") are removed.

    Args:
        loaded: The content of the file.

    Returns:
        The checkpoint.

    Raises:
        ValueError: If there are no weights.
    """
    if not isinstance(loaded, Mapping):
        raise ValueError(
            f"it holds a {type(loaded).__name__}, not weights by name (a state_dict)"
        )
    about = weights = loaded
    for key in _WRAPPERS:
        if isinstance(weights.get(key), Mapping):
            weights = weights[key]
            break
    saved = weights
    weights = {k: v for k, v in weights.items() if isinstance(v, Tensor)}
    if not weights:
        raise ValueError(
            f"it holds no weights, but {', '.join(map(repr, list(loaded)[:5])) or '{}'}"
        )
    weights = {k.replace("_orig_mod.", ""): v for k, v in weights.items()}
    averaged = weights.keys() - {"n_averaged"}
    if averaged and all(key.startswith("module.") for key in averaged):
        weights = {k[7:]: v for k, v in weights.items() if k != "n_averaged"}
    name = about.get("architecture")
    options, meta = (about.get(key) for key in ("options", "meta"))
    return Checkpoint(
        with_metadata(weights, saved),
        name if isinstance(name, str) else None,
        options if isinstance(options, Mapping) else {},
        meta if isinstance(meta, Mapping) else {},
    )


def make_checkpoint(net: HumanMachineMixin) -> dict[str, Any]:
    """Returns the content of a codec's file, in CompressAI's format with additions.

    Args:
        net: The codec.

    Returns:
        ``state_dict``; ``architecture``, the registered name, if it has one; and
        ``options``, the arguments of the constructor, if they are plain values.
    """
    content: dict[str, Any] = {"state_dict": net.state_dict()}
    name = registered_name(net)
    if name is not None:
        content["architecture"] = name
    if net.made_with is not None:
        args, kwargs = net.made_with
        content["options"] = {"args": list(args), "kwargs": dict(kwargs)}
    return content
