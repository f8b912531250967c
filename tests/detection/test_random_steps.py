"""Steps drawn for training."""

import numpy as np
import pytest
import torch

from compressai_hm import QuantSteps
from compressai_hm.detection.models.random_steps import RandomSteps
from compressai_hm.entropy.steps import FIRST, LAST, OCTAVE

from . import tiny


def test_steps_are_uniform_in_their_logarithm():
    torch.manual_seed(0)
    drawn = RandomSteps(0.5, 4).draw(3000, (4, 4))
    assert all(steps.offsets is None for steps in drawn)
    bases = np.array([steps.base for steps in drawn])
    assert bases.min() >= -96 and bases.max() <= 192
    share = np.histogram(bases, bins=3, range=(-96, 192))[0] / len(bases)
    assert np.abs(share - 1 / 3).max() < 0.03
    assert RandomSteps(1, 1).draw(2, (4, 4))[0].plain
    ends = [RandomSteps(*[end] * 2).draw(1, (4, 4))[0].base for end in (1 / 8, 16)]
    assert ends == [FIRST, LAST]


def test_regions_are_finer_and_never_below_low():
    torch.manual_seed(0)
    drawn = RandomSteps(0.5, 4, regions=0.5).draw(1000, (12, 8))
    mapped = [steps for steps in drawn if steps.offsets is not None]
    assert 0.4 < len(mapped) / len(drawn) < 0.55  # the finest have no room
    for steps in mapped:
        assert steps.offsets.shape == (12, 8) and steps.offsets.max() <= 0
        assert steps.values((12, 8)).min() >= 0.5 * 0.999
    assert {int(steps.offsets.min()) for steps in mapped} == set(range(-8, 0))
    sizes = np.array([(steps.offsets < 0).mean() for steps in mapped])
    assert sizes.min() < 0.1 and sizes.max() == 1


def test_the_same_seed_draws_the_same():
    sampler, drawn = RandomSteps(0.5, 4, regions=1), []
    for _ in range(2):
        torch.manual_seed(1)
        drawn.append(sampler.draw(20, (8, 8)))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        (dict(low=0, high=2), "within 0.125 to 16, got low=0, high=2"),
        (dict(low=2, high=1), "got low=2, high=1"),
        (dict(low=1, high=float("nan")), "high=nan"),
        (dict(low=1, high=1.1, regions=0.5), "leaves no room"),
        (dict(low=1, high=2, regions=1.5), "regions is a share, 0 to 1, got 1.5"),
    ],
)
def test_bad_steps_name_their_key(steps, named):
    with pytest.raises(ValueError, match=f"model.steps: .*{named}"):
        tiny.model(steps=steps)


def test_a_picture_counts_by_its_step():
    steps = [QuantSteps(), QuantSteps(OCTAVE), QuantSteps(-2 * OCTAVE)]
    assert RandomSteps(0.25, 2).weights(steps).tolist() == [1, 1, 1]
    expected = pytest.approx([1, 2**0.3, 2**-0.6])
    assert RandomSteps(0.25, 2, weight=0.3).weights(steps).tolist() == expected
