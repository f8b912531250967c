"""MMEngine's checkpoints under torch >= 2.6, with ``weights_only`` left on.

Besides tensors they hold MMEngine's logs (``HistoryBuffer``s of numpy arrays), which
torch refuses unless told that these types are harmless.
"""

from pickle import UnpicklingError

import numpy as np
import torch


def allow_mmengine_checkpoints() -> None:
    """Lets ``torch.load(weights_only=True)`` read what MMEngine's runner saves.

    Only the types named here are added; files that hold anything else still fail.
    """
    from mmengine.logging import HistoryBuffer

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
