import pytest
from PIL import Image

from compressai_hm.detection.datasets import drawn
from compressai_hm.evaluation.sweep import PictureSet, Sweep, read_picture, run


def test_a_sweeps_pictures_are_searched_by_content(tmp_path):
    for name in ("._b.png", "b.dat", "c.png"):
        Image.new("RGB", (9, 9), "red").save(tmp_path / name, "PNG")
    found = PictureSet(dict(name="x", pictures=str(tmp_path))).pictures
    assert found == [(0, tmp_path / "b.dat"), (1, tmp_path / "c.png")]
    assert read_picture(found[0][1]).shape == (1, 3, 9, 9)


def test_labels_are_matched_by_name(cfg, tmp_path):
    own = PictureSet(cfg.sets[0])
    names = {name: number for number, name in drawn.CATEGORIES.items()}
    detector = {**cfg.sets[0].detectors[0], "classes": ["person", "pizza", "kite"]}
    assert own.map_categories(detector) == [None, names["pizza"], names["kite"]]
    del detector["classes"]
    trained_for = ("kite", "person")
    assert own.map_categories(detector, trained_for) == [names["kite"], None]
    with pytest.raises(ValueError, match="knows .'person'.*classes="):
        own.map_categories(detector, ("person",))
    detector["classes"] = "coco"
    assert len(own.map_categories(detector)) == 80
    cfg.sets[0].detectors[0].classes = ["pizza"]
    cfg.codecs = cfg.codecs[:1]
    with pytest.raises(RuntimeError, match="uncompressed at 0, .*say classes="):
        run(Sweep(cfg, tmp_path))


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"x\.png is not a readable picture"):
        read_picture(tmp_path / "x.png")
