"""Silence for messages that packages print when they are imported."""

import contextlib
import io
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Silences warnings and printed lines while packages are imported.

    MMDetection prints a line for each optional package that is absent.

    Yields:
        Nothing; the silence lasts as long as the ``with`` block.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
