"""Loading of MMEngine's checkpoints under torch >= 2.6, with ``weights_only`` left on.

Besides tensors these files hold MMEngine's logs (``HistoryBuffer``s of numpy arrays).
torch refuses such types unless it is told that they are harmless. MMEngine's own
loaders would then load a file without ``weights_only``, and every URL in any case.
"""

import re
from contextlib import contextmanager
from pickle import UnpicklingError

import numpy as np
import torch


def load_checkpoints_safely() -> None:
    """Lets MMEngine read the files that its runner saves, and no file that runs code.

    After this call, MMEngine raises ``pickle.UnpicklingError`` for files and URLs that
    hold other types, and RuntimeError for broken ones.
    """
    from mmengine.logging import HistoryBuffer
    from mmengine.runner.checkpoint import CheckpointLoader

    def get_method(cls: type, name: str):
        """Returns a method of HistoryBuffer; torch rightly bars other ``getattr``."""
        if cls is not HistoryBuffer or name.startswith("_"):
            raise UnpicklingError(f"getattr({cls!r}, {name!r}) is not allowed")
        return getattr(cls, name)

    scalars = (np.float64, np.float32, np.int64, np.int32, np.uint64, np.bool_)
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (get_method, "builtins.getattr"),
            np.ndarray,
            np.dtype,
            np.core.multiarray._reconstruct,
            np.core.multiarray.scalar,
            *(type(np.dtype(scalar)) for scalar in scalars),
        ]
    )

    def load_file(filename: str, map_location=None):
        with _explain_errors(filename):
            return torch.load(filename, map_location=map_location, weights_only=True)

    def load_url(filename: str, map_location=None):
        with _explain_errors(filename):
            return torch.hub.load_state_dict_from_url(
                filename, map_location=map_location, weights_only=True
            )

    CheckpointLoader.register_scheme("", load_file, force=True)
    CheckpointLoader.register_scheme(["http://", "https://"], load_url, force=True)


@contextmanager
def _explain_errors(filename: str):
    """Raises errors of loading again with the file's name and what to do."""
    try:
        yield
    except (UnpicklingError, RuntimeError, EOFError) as e:
        kind = UnpicklingError if isinstance(e, UnpicklingError) else RuntimeError
        raise kind(
            f"cannot load the checkpoint {filename}: {why_unreadable(e)}"
        ) from None


def why_unreadable(error: Exception) -> str:
    """Returns a sentence that explains why torch refused to load a file.

    The sentence never advises to load the file unsafely.

    Args:
        error: The exception that ``torch.load`` raised.
    """
    text = str(error)
    if isinstance(error, UnpicklingError):
        types = re.findall(r"GLOBAL (\S+)", text)
        if types:
            return (
                f"it holds Python objects ({', '.join(dict.fromkeys(types))}), which "
                "are not loaded, for that could run code; save the model's "
                "state_dict() instead"
            )
        return "it is damaged, or holds no weights"
    return (text or type(error).__name__).splitlines()[0]
