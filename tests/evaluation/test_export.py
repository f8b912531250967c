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
