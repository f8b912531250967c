"""Fetching of checkpoints, and loading of their weights into codecs and detectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from ..models.checkpoint import Checkpoint, unwrap
from ..zoo.released import SCHEME, WEIGHTS, local_path


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_from_package(filename: str, map_location: Any) -> Any:
    """Loads a checkpoint that ships inside the package, ``compressai_hm://NAME``.

    Args:
        filename: The name, with the scheme.
        map_location: As in ``torch.load``.

    Returns:
        The content of the file.

    Raises:
        FileNotFoundError: If the package ships no such file.
    """
    path = local_path(filename)
    if not path.is_file():
        shipped = sorted(p.name for p in WEIGHTS.glob("*.pth"))
        raise FileNotFoundError(f"{filename}: the package ships {shipped}")
    return torch.load(path, map_location=map_location, weights_only=True)


def fetch_checkpoint(checkpoint: str) -> Checkpoint:
    """Loads a checkpoint from a file, URL or ``compressai_hm://`` name, onto the CPU.

    Args:
        checkpoint: Its name. The content may be of any kind that
            :func:`compressai_hm.models.checkpoint.unwrap` understands.

    Returns:
        The weights and what was saved beside them.

    Raises:
        FileNotFoundError: If there is no such file.
        RuntimeError: If it cannot be downloaded or read.
    """
    try:
        loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu")
    except FileNotFoundError as e:
        raise FileNotFoundError(f"checkpoint {checkpoint}: {e}") from e
    except URLError as e:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise RuntimeError(
            f"cannot download {checkpoint} ({e}). Fetch that file elsewhere and put it "
            f"into {cache}"
        ) from e
    except Exception as e:  # unpickling a damaged file raises almost anything
        begins = f"cannot load the checkpoint {checkpoint}: "
        raise RuntimeError(begins + str(e).removeprefix(begins)) from e
    try:
        return unwrap(loaded)
    except ValueError as e:
        raise RuntimeError(f"cannot load the checkpoint {checkpoint}: {e}") from None


def read_classes(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Returns the classes that MMDetection 3 or 2 wrote beside a detector's weights.

    Args:
        meta: The checkpoint's ``meta``.

    Returns:
        Their names; None if ``meta`` does not hold them.
    """
    named = {**meta, **(meta.get("dataset_meta") or {})}
    classes = named.get("classes", named.get("CLASSES"))
    return tuple(classes) if classes else None


def load_codec_weights(checkpoint: str) -> dict[str, Tensor]:
    """Loads a codec's weights from its own or a HumanMachineDetector's checkpoint.

    Args:
        checkpoint: A file, URL or ``compressai_hm://`` name.

    Returns:
        The codec's state dict.
    """
    return fetch_checkpoint(checkpoint).part("codec.")


def load_detector(
    module: nn.Module, checkpoint: str, without: str | None = None
) -> tuple[str, ...] | None:
    """Loads a detector's weights from its own or a HumanMachineDetector's checkpoint.

    Args:
        module: The detector.
        checkpoint: A file, URL or ``compressai_hm://`` name.
        without: Prefix of weights that are not loaded. Defaults to None.

    Returns:
        The names of the classes it was trained for; None if the checkpoint does not
        name them.

    Raises:
        RuntimeError: If the checkpoint is of another model.
    """
    content, expected = fetch_checkpoint(checkpoint), module.state_dict()
    weights = content.part("detector.")
    if without:
        weights = {k: v for k, v in weights.items() if not k.startswith(without)}
        weights |= {k: v for k, v in expected.items() if k.startswith(without)}
    wrong = mismatches(module, weights)
    if wrong:
        raise RuntimeError(
            f"{checkpoint} is of another model than {type(module).__name__}: "
            f"{len(wrong)} of {len(expected)} weights are missing or of another shape, "
            f"the first is {wrong[0]}"
        )
    weights = {k: v for k, v in weights.items() if k in expected}
    module.load_state_dict(weights, strict=False)
    return content.meta.get("detector_classes") or read_classes(content.meta)


def mismatches(module: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Returns the keys of a module's weights that are missing or of another shape.

    Args:
        module: The module, whose state dict is expected.
        weights: The weights to compare with it.
    """
    return [
        key
        for key, value in module.state_dict().items()
        if not key.endswith("num_batches_tracked")
        and (key not in weights or weights[key].shape != value.shape)
    ]
