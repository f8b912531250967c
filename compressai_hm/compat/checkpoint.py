"""MMEngine's checkpoints under torch >= 2.6, with ``weights_only`` left on.

Besides tensors they hold MMEngine's logs (``HistoryBuffer``s of numpy arrays), which
torch refuses unless told that these types are harmless. MMEngine's own loaders would go
on without ``weights_only`` where that fails, and for every URL.
"""

import re
from contextlib import contextmanager
from pickle import UnpicklingError

import numpy as np
import torch


def load_checkpoints_safely() -> None:
    """Lets MMEngine read what its runner saves, and nothing that runs code.

    Files and URLs that hold other types raise ``pickle.UnpicklingError``, broken ones
    RuntimeError.
    """
    from mmengine.logging import HistoryBuffer
    from mmengine.runner.checkpoint import CheckpointLoader

    def method(cls: type, name: str):
        """All that a HistoryBuffer needs of ``getattr``, which torch rightly bars."""
        if cls is not HistoryBuffer or name.startswith("_"):
            raise UnpicklingError(f"getattr({cls!r}, {name!r}) is not allowed")
        return getattr(cls, name)

    scalars = (np.float64, np.float32, np.int64, np.int32, np.uint64, np.bool_)
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (method, "builtins.getattr"),
            np.ndarray,
            np.dtype,
            np.core.multiarray._reconstruct,
            np.core.multiarray.scalar,
            *(type(np.dtype(scalar)) for scalar in scalars),
        ]
    )

    def from_file(filename: str, map_location=None):
        with _explained(filename):
            return torch.load(filename, map_location=map_location, weights_only=True)

    def from_url(filename: str, map_location=None):
        with _explained(filename):
            return torch.hub.load_state_dict_from_url(
                filename, map_location=map_location, weights_only=True
            )

    CheckpointLoader.register_scheme("", from_file, force=True)
    CheckpointLoader.register_scheme(["http://", "https://"], from_url, force=True)


@contextmanager
def _explained(filename: str):
    """Names the file, and leaves out torch's advice to switch weights_only off."""
    try:
        yield
    except UnpicklingError as e:
        barred = re.search(r"GLOBAL (\S+)", str(e))
        reason = "it is none"
        if barred:
            reason = f"it holds {barred[1]}, and only tensors and plain values are read"
        raise UnpicklingError(
            f"cannot load the checkpoint {filename}: {reason}"
        ) from None
    except (RuntimeError, EOFError) as e:
        raise RuntimeError(f"cannot load the checkpoint {filename}: {e}") from e
