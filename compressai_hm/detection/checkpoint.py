"""Where weights come from and how checkpoints are written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from ..codecs.checkpoint import Checkpoint, unwrap
from ..codecs.files import write_whole
from ..zoo.released import SCHEME, WEIGHTS, local_path


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_from_package(filename: str, map_location: Any) -> Any:
    """Loads ``compressai_hm://NAME``: weights that ship inside the package."""
    path = local_path(filename)
    if not path.is_file():
        shipped = sorted(p.name for p in WEIGHTS.glob("*.pth"))
        raise FileNotFoundError(f"{filename}: the package ships {shipped}")
    return torch.load(path, map_location=map_location, weights_only=True)


def fetch_checkpoint(checkpoint: str) -> Checkpoint:
    """What is in a file, URL or ``compressai_hm://`` name, on the CPU.

    Args:
        checkpoint: Of any kind that :func:`compressai_hm.codecs.checkpoint.unwrap`
            understands.

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
    except Exception as e:  # unpickling rubbish raises almost anything
        begins = f"cannot load the checkpoint {checkpoint}: "
        raise RuntimeError(begins + str(e).removeprefix(begins)) from e
    try:
        return unwrap(loaded)
    except ValueError as e:
        raise RuntimeError(f"cannot load the checkpoint {checkpoint}: {e}") from None


def classes_of(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names that MMDetection 3, or 2, wrote beside a detector's weights."""
    named = {**meta, **(meta.get("dataset_meta") or {})}
    classes = named.get("classes", named.get("CLASSES"))
    return tuple(classes) if classes else None


def load_codec_weights(checkpoint: str) -> dict[str, Tensor]:
    """A codec's, also from a HumanMachineDetector's checkpoint."""
    return fetch_checkpoint(checkpoint).part("codec.")


@register_backend("atomic_local")
class AtomicLocalBackend(LocalBackend):
    """Writes aside and renames, so that no half-written checkpoint is ever found."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_whole(obj, filepath)
