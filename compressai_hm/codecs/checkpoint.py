"""Files of weights: what other programs write, understood; what this one writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..compat import why_unreadable
from .human_machine import HumanMachineMixin, registered_name
from .tables import with_metadata

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
    """Weights and what is known of their model.

    Args:
        weights: By key, without the prefixes that wrappers of models add.
        architecture: Registered name of the HM model.
        options: ``args`` and ``kwargs`` that it was made with.
        meta: What MMEngine writes of its data set.
    """

    weights: dict[str, Tensor]
    architecture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The weights under a prefix, without it; all if there are none.

        All, too, of a codec by itself, which may have a part of that name.
        """
        every = self.weights
        own = {k[len(prefix) :]: v for k, v in every.items() if k.startswith(prefix)}
        if not own or any(key.startswith("g_a.") for key in every):
            return every
        return with_metadata(own, every)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a file; nothing in it can run code.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no weights; says what it is instead.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # unpickling rubbish raises almost anything
        with open(path, "rb") as f:
            raise ValueError(f"{path}: {_why_not(f.read(8), e)}") from e
    try:
        return unwrap(loaded)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None


def _why_not(start: bytes, error: Exception) -> str:
    for begins, kind in _KINDS.items():
        if start.startswith(begins) if begins else not start:
            return f"not a checkpoint: it is {kind}"
    return f"not a checkpoint: {why_unreadable(error)}"


def unwrap(loaded: Any) -> Checkpoint:
    """Weights out of what a training program saved.

    That is a state dict, or one under "state_dict", "model_state_dict", "network" or
    "model", with or without the prefixes of ``torch.compile`` ("_orig_mod."), of
    DataParallel and AveragedModel ("module.").

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


def checkpoint_of(net: HumanMachineMixin) -> dict[str, Any]:
    """What to save of a codec: CompressAI's format, with what makes the model again.

    Returns:
        ``state_dict``; ``architecture``, the registered name, if it has one; and
        ``options``, the arguments that it was made with, if they are plain values.
    """
    content: dict[str, Any] = {"state_dict": net.state_dict()}
    name = registered_name(net)
    if name is not None:
        content["architecture"] = name
    if net.made_with is not None:
        args, kwargs = net.made_with
        content["options"] = {"args": list(args), "kwargs": dict(kwargs)}
    return content
