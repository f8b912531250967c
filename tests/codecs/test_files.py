import numpy as np
import pytest
import torch
from PIL import Image

from compressai_hm.codecs.files import read_picture, write_png, write_whole

RAMP = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (20, 1))
COLOURS = np.stack([RAMP, RAMP[:, ::-1], 255 - RAMP], -1)


def test_colours_come_back(tmp_path):
    x = torch.from_numpy(COLOURS).permute(2, 0, 1)[None] / 255
    write_png(x, tmp_path / "new" / "x.png")
    assert torch.equal(read_picture(tmp_path / "new" / "x.png"), x)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.png"]


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    picture = Image.fromarray(RAMP).convert("RGB").convert(mode)
    picture.save(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"))
    (path,) = tmp_path.iterdir()
    x = read_picture(path)
    expected = np.asarray(picture.convert("RGB"))[None] / 255
    assert x.shape == (1, 3, 20, 60)
    assert np.allclose(x.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)


def test_16_bits_are_kept(tmp_path):
    values = np.arange(1200, dtype=np.uint16).reshape(20, 60) * 54
    Image.fromarray(values).save(tmp_path / "x.png")
    x = read_picture(tmp_path / "x.png")
    assert np.allclose(x[0, 1].numpy(), values / 65535, atol=1e-7)


def test_transparency_lies_over_white(tmp_path):
    rgba = np.dstack([COLOURS, np.zeros_like(RAMP)])
    rgba[0, 0, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "x.png")
    x = read_picture(tmp_path / "x.png")
    assert (x[..., 1:, 1:] == 1).all() and x[0, 1, 0, 0] == COLOURS[0, 0, 1] / 255


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    Image.fromarray(COLOURS).save(tmp_path / "x.png", exif=exif)
    x = read_picture(tmp_path / "x.png")
    expected = np.rot90(COLOURS, -1).transpose(2, 0, 1) / 255
    assert np.allclose(x[0].numpy(), expected, atol=1e-6)


def test_what_is_no_picture_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png: there is no such file"):
        read_picture(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.png: not a readable picture"):
        read_picture(tmp_path / "text.png")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ValueError, match=r"f\.tif: floating-point"):
        read_picture(tmp_path / "f.tif")
    Image.fromarray(np.full((4, 4), -5, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(ValueError, match=r"i\.tif: samples from -5"):
        read_picture(tmp_path / "i.tif")


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    write_whole(b"old", path)

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(b"new", path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
