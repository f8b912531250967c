"""The tools as commands of a wheel: hm-codec runs tools/codec.py.

In a wheel this folder is compressai_hm_tools, and contains mmdet_configs. The tools
run as scripts, because they set up torch's environment before it is imported.
"""

import runpy
import sys
from functools import partial
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def _run(name: str) -> None:
    sys.path.insert(0, str(_FOLDER))  # Python does so for a script
    runpy.run_path(str(_FOLDER / f"{name}.py"), run_name="__main__")


app, codec, detect, train, test, demo = (
    partial(_run, name) for name in ("app", "codec", "detect", "train", "test", "demo")
)
sweep = partial(_run, "rate_accuracy")
