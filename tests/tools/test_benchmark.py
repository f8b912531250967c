import runpy
from pathlib import Path

import pytest
import torch

from compressai_hm.codecs import HumanMachineMixin
from tests.codecs.families import portable

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools/benchmark.py"))


@pytest.mark.parametrize("name", TOOL["COMPARED"])
def test_ours_is_compared_with_compressai_of_the_same_weights(name):
    net = portable(name)
    base = TOOL["_base"](net)
    assert type(base) in type(net).__bases__
    assert not isinstance(base, HumanMachineMixin)
    for key, value in base.state_dict().items():
        torch.testing.assert_close(value, net.state_dict()[key])
