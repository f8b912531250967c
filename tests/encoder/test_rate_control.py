"""Files of a size that is asked for."""

from pathlib import Path

import numpy as np
import pytest

from compressai_hm import Bitstream, decode, encode
from compressai_hm.encoder.rate_control import TOLERANCE, encode_to_size
from compressai_hm.entropy import QuantSteps
from compressai_hm.io.pictures import read_picture
from compressai_hm.zoo import image_models


@pytest.fixture(scope="module")
def net():
    return image_models["hm-compact"](quality=4, pretrained=True).eval()


@pytest.fixture(scope="module")
def x():
    path = Path(__file__).parents[2] / "tools/pictures/kodim14.png"
    return read_picture(path)[..., 150:310, 200:392]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.97, 1.0, 1.6, 3.0])
def test_a_file_is_at_most_as_large_as_asked_and_hardly_smaller(net, x, share):
    most = int(share * len(encode(net, x)))
    data = encode_to_size(net, x, most, quality=2)
    assert most * (1 - TOLERANCE) <= len(data) <= most
    assert Bitstream.read(data).quality == 2
    assert decode(net, data)["x_hat"].shape == x.shape


def test_few_tries_are_enough(net, x, monkeypatch):
    tries = []
    real = net.encode_latent
    monkeypatch.setattr(
        net, "encode_latent", lambda *args: tries.append(1) or real(*args)
    )
    for share in (0.4, 0.8, 2.0):
        encode_to_size(net, x, int(share * len(encode(net, x))))
    assert len(tries) - 3 <= 3 * 5


def test_a_map_keeps_its_offsets(net, x):
    height, width = (4 * -(-side // 64) for side in x.shape[-2:])
    offsets = np.zeros((height, width), dtype=np.int8)
    offsets[:4, :4] = -4
    most = len(encode(net, x)) // 2
    data = encode_to_size(net, x, most, step=QuantSteps(0, offsets))
    assert most * (1 - TOLERANCE) <= len(data) <= most
    assert (Bitstream.read(data).steps().offsets == offsets).all()


def test_a_size_out_of_reach_says_what_is(net, x):
    with pytest.raises(ValueError, match="does not fit into 60 bytes: .* it has "):
        encode_to_size(net, x, 60)
    data = encode_to_size(net, x, 10**7)  # the finest step there is
    assert Bitstream.read(data).steps().values((1, 1)) == 1 / 8


def test_no_step_is_tried_beyond_those_of_training(net, x):
    """There hm-compact's files grow again, and a search would not find the smallest."""
    sizes = [len(encode(net, x, step=step)) for step in (1.9, 4.0, net.coarsest_step)]
    assert sizes == sorted(sizes, reverse=True)
    data = encode_to_size(net, x, sizes[-1] + 4)
    assert Bitstream.read(data).steps().values((1, 1)) <= net.coarsest_step + 1e-9
    with pytest.raises(ValueError, match=f"step, 6, it has {sizes[-1]};"):
        encode_to_size(net, x, sizes[-1] - 8)
