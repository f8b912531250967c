import os
import warnings

import pytest
import torch

os.environ["OMP_NUM_THREADS"] = "1"  # also for the processes that tests start
torch.set_num_threads(1)
warnings.filterwarnings("ignore", category=FutureWarning, module="torch")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
