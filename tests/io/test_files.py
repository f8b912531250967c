import numpy as np
import pytest
import torch

from compressai_hm.io.files import write_png, write_whole
from compressai_hm.io.pictures import read_picture

RAMP = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (20, 1))
COLORS = np.stack([RAMP, RAMP[:, ::-1], 255 - RAMP], -1)


def test_colors_come_back(tmp_path):
    x = torch.from_numpy(COLORS).permute(2, 0, 1)[None] / 255
    write_png(x, tmp_path / "new" / "x.png")
    assert torch.equal(read_picture(tmp_path / "new" / "x.png"), x)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.png"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    write_whole(b"old", path)

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(b"new", path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_names_may_be_as_long_as_names_can_be(tmp_path):
    for name in (251 * "x" + ".png", 125 * "ü" + ".tiff"):
        write_whole(b"x", tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"x"


def test_a_replaced_file_keeps_link_and_mode(tmp_path):
    target, link = tmp_path / "x.bin", tmp_path / "link.bin"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_whole(b"new", link)
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.bin", "x.bin"]
