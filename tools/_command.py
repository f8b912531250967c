"""What all tools share: a polite start, and errors of one line.

Imported before torch, whose threads read the environment when they start.
"""

import argparse
import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pickle import UnpicklingError

# Else OpenMP's threads spin where they wait: beside one other busy process a training
# step takes up to ten times as long. A short spin costs nothing on a quiet machine.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
if not sys.warnoptions:  # those who ask for warnings get them
    # Meant for who maintains the packages that tools are made of. Spawned processes
    # read the environment.
    for category in (DeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    os.environ["PYTHONWARNINGS"] = "ignore::DeprecationWarning,ignore::FutureWarning"

_USERS = (OSError, ValueError, RuntimeError, ImportError, UnpicklingError)
"""What is raised for a wrong file or value; the others are faults of the program."""

_READ = ("mmengine.config", "mmengine.registry")
"""Whose errors of any type tell of a config; OpenMMLab's asserts do, too."""


def parser(description: str) -> argparse.ArgumentParser:
    """A parser whose help shows a module's docstring as it is."""
    p = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_debug(p)
    return p


def add_debug(p: argparse.ArgumentParser) -> None:
    """Adds ``--debug``, which :func:`run` acts on, to a parser's help."""
    p.add_argument("--debug", action="store_true", help="show where an error arose")


def run(main: Callable[[], int | None], stopped: str = "stopped") -> None:
    """Runs a tool and exits with what it returns.

    A wrong file, option or config is told in one line on stderr, with status 2; with
    ``--debug`` anywhere on the command line, after the trace.

    Args:
        main: The tool.
        stopped: The sentence for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # λ, on a screen that has none
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    sys.argv[1:] = [a for a in sys.argv[1:] if a != "--debug"]  # subcommands lack it
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(stopped)
    except BrokenPipeError:  # the reader, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as e:
        if not isinstance(e, _USERS) and not _from_config(e):
            raise
        if debug:
            traceback.print_exc()
        sys.stdout.flush()
        print(f"error: {sentence(e)}", file=sys.stderr)
        sys.exit(2)
    sys.exit(code)


def _from_config(e: Exception) -> bool:
    walked = traceback.walk_tb(e.__traceback__)
    names = [frame.f_globals.get("__name__", "") for frame, _ in walked]
    asserted = isinstance(e, AssertionError) and names[-1].startswith("mm")
    return asserted or any(name.startswith(_READ) for name in names)


def sentence(e: BaseException) -> str:
    """An error's message in one line; where it has none, that of its cause."""
    if isinstance(e, OSError) and e.filename is not None and e.strerror:
        return f"{e.filename}: {e.strerror}"
    text = str(e.args[0]) if isinstance(e, KeyError) and e.args else str(e)
    if "Original Traceback" in text:  # of a loader's worker: the last line is its error
        text = text.strip().splitlines()[-1]
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    text = " ".join([*lines[:3], "..."] if len(lines) > 3 else lines)
    if not text and e.__cause__ is not None:
        return sentence(e.__cause__)
    if isinstance(e, KeyError) and " " not in text:
        return f"{text!r} is missing"
    if not text and e.__traceback__:  # such as an assert's
        text = traceback.extract_tb(e.__traceback__)[-1].line
    return text or type(e).__name__
