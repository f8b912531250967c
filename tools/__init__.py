"""The tools as commands of a wheel: hm-codec is tools/codec.py.

There this folder is compressai_hm_tools, and mmdet_configs and results lie in it. The
tools are run as scripts: they set up torch's environment before it is imported.
"""

import runpy
import sys
from functools import partial
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def _run(name: str) -> None:
    sys.path.insert(0, str(_FOLDER))  # as Python does for a script
    runpy.run_path(str(_FOLDER / f"{name}.py"), run_name="__main__")


app, codec, train, test, demo = (
    partial(_run, name) for name in ("app", "codec", "train", "test", "demo")
)
sweep = partial(_run, "rate_accuracy")
