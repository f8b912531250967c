from dataclasses import replace

import pytest

from compressai_hm.evaluation import result_files as export

from .conftest import finish


def test_the_files_are_compressais(cfg, tmp_path):
    from compressai.utils.plot.__main__ import parse_json_file

    finish(cfg, tmp_path / "w")
    path = tmp_path / "w/results/people/JPEG.json"
    read = parse_json_file(str(path), "psnr-rgb")
    assert len(read["xs"]) == len(read["ys"]) == 3
    lines = (tmp_path / "w/results/points.csv").read_text().splitlines()
    assert lines[0] == "set,codec,view,quality,bpp,container_bytes,metric,value"
    assert any(line.startswith("drawn,uncompressed") for line in lines)


def test_points_can_be_read_again(cfg, tmp_path):
    _, curves, _, reference = finish(cfg, tmp_path / "w")
    path = tmp_path / "w/results/points.csv"
    read, uncompressed = export.read_points(path)
    assert uncompressed == reference
    assert len(read) == len(curves)
    for ours, own in zip(read, curves, strict=True):
        assert replace(own, resampled={}, left_out={}) == ours
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"points.csv: the columns are \['a', 'b'\]"):
        export.read_points(path)
