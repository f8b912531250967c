import os
import sys
import warnings
from pathlib import Path

import pytest
import torch

os.environ["OMP_NUM_THREADS"] = "1"  # also for the processes that tests start
sys.path.append(str(Path(__file__).parents[1] / "tools"))  # for _command
torch.set_num_threads(1)
warnings.filterwarnings("ignore", category=FutureWarning, module="torch")


QUICK = {"hm-compact", "hm-mbt2018-mean"}
"""The families of codecs that --quick tests."""


def pytest_addoption(parser):
    parser.addoption(
        "--quick", action="store_true", help="two families of codecs, nothing slow"
    )
    parser.addoption(
        "--gpu", action="store_true", help="only what needs a GPU, which others ignore"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a GPU; run by --gpu")
    config.addinivalue_line("markers", "slow: takes long; left out by --quick")
    if not config.getoption("--gpu"):
        # Before CUDA is asked, and for processes that tests start. MMEngine would take
        # a GPU, and two processes one each: a machine would decide what is tested.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config, items):
    if config.getoption("--quick"):
        items[:] = [item for item in items if _is_quick(item)]
    asked = config.getoption("--gpu")
    here = asked and torch.cuda.is_available()
    for item in items:
        needed = "gpu" in item.keywords
        if needed and not here:
            item.add_marker(pytest.mark.skip(reason="needs a GPU, and --gpu"))
    if asked:
        items[:] = [item for item in items if "gpu" in item.keywords]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def _is_quick(item):
    params = item.callspec.params.values() if hasattr(item, "callspec") else ()
    names = {p for p in params if isinstance(p, str) and p.startswith("hm-")}
    return names <= QUICK and not item.get_closest_marker("slow")
