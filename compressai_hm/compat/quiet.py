"""Other packages' remarks on being imported."""

import contextlib
import io
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Keeps off the screen what imported packages say of what they could not import.

    MMDetection prints a line for each optional package that is absent.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
