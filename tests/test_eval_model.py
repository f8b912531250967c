"""What bpp is of, as the help says it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.ops import compute_padding
from PIL import Image

import compressai_hm.zoo
from compressai_hm import Bitstream, encode, eval_model
from compressai_hm.io.pictures import read_picture
from compressai_hm.zoo import load_checkpoint

DEMO = Path(compressai_hm.zoo.__file__).parent / "weights/demo_codec.pth"


@pytest.mark.parametrize("size", [(300, 200), (256, 192)])
def test_bpp_is_what_the_help_says(tmp_path, capsys, size):
    coarse = np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.BICUBIC).save(tmp_path / "a.png")
    found = []
    for options in ([], ["--entropy-estimation"]):
        eval_model.main(
            ["checkpoint", str(tmp_path), "-a", "hm-mbt2018-mean", "-p", str(DEMO)]
            + options
        )
        found += json.loads(capsys.readouterr().out)["results"]["bpp"]
    streams, estimated = (bpp * size[0] * size[1] / 8 for bpp in found)

    net, x = load_checkpoint(DEMO).eval(), read_picture(tmp_path / "a.png")
    pad, _ = compute_padding(*x.shape[2:], min_div=64)
    black = net.compress(torch.nn.functional.pad(x, pad))["strings"]
    assert round(streams) == sum(len(s[0]) for s in black)
    data = encode(net, x)
    alone = len(data) - Bitstream.read(data).overhead
    assert 0 < alone - estimated < 20
    assert (streams == pytest.approx(alone)) == (size == (256, 192))


def test_the_help_says_what_bpp_is(capsys):
    with pytest.raises(SystemExit):
        eval_model.main(["checkpoint", "--help"])
    assert "tools/codec.py" in capsys.readouterr().out
