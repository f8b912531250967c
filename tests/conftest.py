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


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
