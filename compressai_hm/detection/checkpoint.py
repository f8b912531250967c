"""Where weights come from and how checkpoints are written."""

from pathlib import Path
from urllib.error import URLError

import torch
from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from ..codecs.files import write_whole
from ..zoo.released import WEIGHTS


@CheckpointLoader.register_scheme(prefixes="compressai_hm://")
def load_from_package(filename: str, map_location):
    """Loads ``compressai_hm://NAME``: weights that ship inside the package."""
    path = WEIGHTS / filename.removeprefix("compressai_hm://")
    if not path.is_file():
        shipped = sorted(p.name for p in WEIGHTS.glob("*.pth"))
        raise FileNotFoundError(f"{filename}: the package ships {shipped}")
    return torch.load(path, map_location=map_location, weights_only=True)


def load_weights(checkpoint: str) -> dict[str, Tensor]:
    """The state dict of :func:`load_whole`'s.

    Takes what MMEngine and CompressAI write: the weights themselves, or under
    "state_dict" or "network".
    """
    return weights_of(load_whole(checkpoint))


def weights_of(loaded: dict) -> dict[str, Tensor]:
    """The state dict in what a checkpoint holds."""
    for key in ("state_dict", "network"):
        if key in loaded:
            return loaded[key]
    return loaded


def classes_of(loaded: dict) -> tuple[str, ...] | None:
    """The names that MMDetection 3, or 2, wrote beside a detector's weights."""
    meta = loaded.get("meta") or {}
    named = {**meta, **(meta.get("dataset_meta") or {})}
    classes = named.get("classes", named.get("CLASSES"))
    return tuple(classes) if classes else None


def load_whole(checkpoint: str) -> dict:
    """What is in a file, URL or ``compressai_hm://`` name, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        RuntimeError: If it cannot be downloaded or read.
    """
    try:
        return CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu")
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


def load_codec_weights(checkpoint: str) -> dict[str, Tensor]:
    """As :func:`load_weights`, for a codec: also from a HumanMachineDetector's."""
    weights = load_weights(checkpoint)
    codec = {k[6:]: v for k, v in weights.items() if k.startswith("codec.")}
    return codec or weights


@register_backend("atomic_local")
class AtomicLocalBackend(LocalBackend):
    """Writes aside and renames, so that no half-written checkpoint is ever found."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_whole(obj, filepath)
