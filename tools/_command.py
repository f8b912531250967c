"""Settings of threads and warnings, and errors of one line, for all tools.

Tools import it before torch, whose threads read the environment when they start.
"""

import argparse
import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pickle import UnpicklingError
from types import TracebackType

# By default OpenMP's threads spin while they wait: beside one other busy process a
# training step takes up to ten times as long. A short spin costs nothing otherwise.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
if not sys.warnoptions:  # python -W shows warnings
    # These are for the maintainers of the packages that the tools import. Spawned
    # processes read the environment.
    for category in (DeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    os.environ["PYTHONWARNINGS"] = "ignore::DeprecationWarning,ignore::FutureWarning"

_USERS = (OSError, ValueError, RuntimeError, ImportError, UnpicklingError)
"""Types of errors for a wrong file or value; others are faults of the program."""

_CONFIG_MODULES = ("mmengine.config", "mmengine.registry")
"""Modules whose errors of any type concern a config, like OpenMMLab's asserts."""

_EXTRAS = {
    "openmmlab": ("mmengine", "mmcv", "mmdet", "pycocotools"),
    "evaluation": ("bjontegaard", "distributed", "imageio_ffmpeg"),
}
"""Which extra of the package installs a module."""


def parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser whose help shows a module's docstring unchanged."""
    p = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_debug(p)
    return p


def add_debug(p: argparse.ArgumentParser) -> None:
    """Adds ``--debug``, which :func:`run` acts on, to a parser's help."""
    p.add_argument("--debug", action="store_true", help="show the trace of an error")


def run(main: Callable[[], int | None], stopped: str = "stopped") -> None:
    """Runs a tool and exits with what it returns.

    A wrong file, option or config is reported in one line on stderr, with status 2.
    With ``--debug`` anywhere on the command line, the trace comes before it.

    Args:
        main: The tool.
        stopped: Message for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack λ
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    sys.argv[1:] = [a for a in sys.argv[1:] if a != "--debug"]  # subcommands lack it
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(stopped)
    except BrokenPipeError:  # a program such as head has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as e:
        if not isinstance(e, _USERS) and not _is_from_config(e):
            raise
        if debug:
            traceback.print_exc()
        sys.stdout.flush()
        print(f"error: {sentence(e)}", file=sys.stderr)
        sys.exit(2)
    sys.exit(code)


def _is_from_config(e: Exception) -> bool:
    frames = traceback.walk_tb(e.__traceback__)
    names = [frame.f_globals.get("__name__", "") for frame, _ in frames]
    asserted = isinstance(e, AssertionError) and names[-1].startswith("mm")
    return asserted or any(name.startswith(_CONFIG_MODULES) for name in names)


def sentence(e: BaseException) -> str:
    """Returns an error's message in one line, or its cause's if it has none."""
    if isinstance(e, ModuleNotFoundError):
        root = (e.name or "").partition(".")[0]
        for extra, modules in _EXTRAS.items():
            if root in modules:
                return f'{root} is missing: pip install "compressai-hm[{extra}]"'
    if isinstance(e, OSError) and e.filename is not None and e.strerror:
        return f"{e.filename}: {e.strerror}"
    text = str(e.args[0]) if isinstance(e, KeyError) and e.args else str(e)
    if "Original Traceback" in text:  # a data loader's worker: its error comes last
        text = text.strip().splitlines()[-1]
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    text = " ".join([*lines[:3], "..."] if len(lines) > 3 else lines)
    if not text and e.__cause__ is not None:
        return sentence(e.__cause__)
    if isinstance(e, KeyError) and " " not in text:
        return f"{text!r} is missing"
    if not text and e.__traceback__:  # an assert without a message
        text = traceback.extract_tb(e.__traceback__)[-1].line
    return text or type(e).__name__


def escape(text: str) -> str:
    """Escapes what a terminal cannot show in one line: file names may hold anything."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "replace").decode()
        for c in text
    )


def _report(
    kind: type[BaseException], e: BaseException, trace: TracebackType | None
) -> None:
    """Reports a missing package in one line: a tool imports it before :func:`run`."""
    if isinstance(e, ModuleNotFoundError) and "--debug" not in sys.argv:
        print(f"error: {sentence(e)}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, e, trace)


sys.excepthook = _report
