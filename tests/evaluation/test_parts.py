from PIL import Image

from compressai_hm.evaluation.parts import PictureSet, read


def test_a_sweeps_pictures_are_searched_by_content(tmp_path):
    for name in ("._b.png", "b.dat", "c.png"):
        Image.new("RGB", (9, 9), "red").save(tmp_path / name, "PNG")
    found = PictureSet(dict(name="x", pictures=str(tmp_path))).pictures
    assert found == [(0, tmp_path / "b.dat"), (1, tmp_path / "c.png")]
    assert read(found[0][1]).shape == (1, 3, 9, 9)
