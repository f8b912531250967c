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


def pytest_addoption(parser):
    parser.addoption(
        "--gpu", action="store_true", help="only what needs a GPU, which others ignore"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a GPU; run by --gpu")
    if not config.getoption("--gpu"):
        # Before CUDA is asked, and for processes that tests start. MMEngine would take
        # a GPU, and two processes one each: a machine would decide what is tested.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config, items):
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
