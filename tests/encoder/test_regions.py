"""Maps of steps from masks and boxes."""

import numpy as np
import pytest
import torch

from compressai_hm import QuantSteps
from compressai_hm.encoder.regions import (
    boxes_to_mask,
    importance_to_steps,
    mask_to_importance,
)


def map_of_mask(mask, gain, step=1.0):
    return importance_to_steps(mask_to_importance(mask), gain, step)


def test_a_block_is_inside_if_any_of_its_pixels_is():
    mask = torch.zeros(40, 70)
    mask[17, 33] = 1
    steps = map_of_mask(mask, 2.0, 1.5)
    assert steps.shape == (3, 5) and steps[1, 2] == 0.75
    assert (steps == 1.5).sum() == 14
    mask[39, 69] = 1
    assert map_of_mask(mask, 2.0)[2, 4] == 0.5
    mask[0, 0] = 0.5
    assert map_of_mask(mask, 4.0)[0, 0] == 0.5


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 1), (100, 33)])
@pytest.mark.parametrize(("fill", "step"), [(0, 2.0), (1, 0.5)])
def test_nothing_and_everything_are_uniform(size, fill, step):
    steps = map_of_mask(torch.full(size, fill), 4.0, 2.0)
    assert steps.shape == tuple(-(-side // 16) for side in size)
    assert (steps == step).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("gain", [1.19, 1.41, 1.68, 2.0, 2.38, 3.0])
def test_the_step_elsewhere_is_the_one_asked_for(share, gain):
    mask = torch.zeros(160, 160)
    mask[: int(160 * share)] = 1
    steps = QuantSteps.nearest(map_of_mask(mask, gain, 1.5), (160, 160))
    values = np.unique(steps.values((12, 12))[:10, :10])
    assert values[1] == QuantSteps.nearest(1.5, (16, 16)).values((1, 1))
    octaves = np.log2(values[1] / values[0])
    assert octaves == pytest.approx(round(4 * np.log2(gain)) / 4, abs=0.01)


def test_the_step_stays_above_an_eighth():
    assert map_of_mask(torch.ones(32, 32), 100.0, 4.0).min() == 1 / 8


def test_boxes_are_cut_at_the_border():
    mask = boxes_to_mask(torch.tensor([[2.5, 3.0, 5.2, 4.0]]), (10, 20))
    assert mask.sum() == 4 * 1 and mask[3, 2:6].all()
    beyond = boxes_to_mask(torch.tensor([[-9.0, -9, 2, 2], [30, 0, 40, 9]]), (10, 20))
    assert beyond.sum() == 4
    assert not boxes_to_mask(torch.zeros(0, 4), (10, 20)).any()


def test_what_is_no_region_is_told():
    with pytest.raises(ValueError, match="gain must be 1 or from 1.1 on, got 0.5"):
        map_of_mask(torch.ones(9, 9), 0.5)
    with pytest.raises(ValueError, match="gain must be 1 or from 1.1 on, got nan"):
        map_of_mask(torch.ones(9, 9), float("nan"))
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 0 to 255"):
        map_of_mask(255 * torch.eye(32), 2)
    with pytest.raises(ValueError, match=r"\(H, W\), got \(1, 9, 9\)"):
        map_of_mask(torch.ones(1, 9, 9), 2)
    with pytest.raises(ValueError, match="left, top, right, bottom.*5.0, 1.0, 2.0"):
        boxes_to_mask(torch.tensor([[5.0, 1, 2, 9]]), (10, 10))
