import runpy
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from compressai_hm import HumanMachineMixin
from tests.families import portable

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools/benchmark.py"))


@pytest.mark.parametrize("name", TOOL["COMPARED"])
def test_ours_is_compared_with_compressai_of_the_same_weights(name):
    net = portable(name)
    base = TOOL["_load_compressai"](net)
    assert type(base) in type(net).__bases__
    assert not isinstance(base, HumanMachineMixin)
    for key, value in base.state_dict().items():
        torch.testing.assert_close(value, net.state_dict()[key])


def test_runtimes_are_compared_in_turns(capsys):
    calls = []

    def side(name, seconds, out):
        def run():
            calls.append(name)
            time.sleep(seconds)
            return np.array([0.5, out])

        return name, run

    sides = dict([side("torch", 0.09, 0.25), side("a", 0.03, 0.25), side("b", 0, 0.75)])
    TOOL["_print_runtimes"]("row", sides, 3)
    assert calls == ["a", "b", "torch", "torch", "b", "a"] * 2
    row, base, s, a, _, a_error, b, _, b_error = capsys.readouterr().out.split()
    assert (row, s) == ("row", "s") and float(base) >= 0.09
    assert 1 < float(a) < float(b)
    assert float(a_error) == 0 and float(b_error) == 0.5
