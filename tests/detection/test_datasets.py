import json
import multiprocessing
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from PIL import ExifTags, Image

from compressai_hm.detection import LoadCachedImage, RandomDownscale
from compressai_hm.detection.datasets import coco as datasets
from compressai_hm.detection.datasets import drawn


def build(root, split="train", **kwargs):
    init_default_scope("mmdet")
    return DATASETS.build(
        dict(
            type="CheckedCocoDataset",
            data_root=str(root),
            ann_file=f"annotations/instances_{split}2017.json",
            data_prefix=dict(img=f"{split}2017/"),
            metainfo=dict(classes=tuple(drawn.CATEGORIES.values())),
            pipeline=[],
            **kwargs,
        )
    )


def test_the_same_seed_draws_the_same_set(tmp_path, drawn_set):
    drawn.make_coco(tmp_path / "again", num_train=8, num_val=4, seed=0)
    drawn.make_coco(tmp_path / "other", num_train=8, num_val=4, seed=1)
    for path in drawn_set.rglob("*.*"):
        name = path.relative_to(drawn_set)
        assert (tmp_path / "again" / name).read_bytes() == path.read_bytes()
        if path.suffix == ".png":
            assert (tmp_path / "other" / name).read_bytes() != path.read_bytes()


def test_it_is_a_coco_set(drawn_set):
    for split, count in (("train", 8), ("val", 4)):
        dataset = build(drawn_set, split)
        assert len(dataset) == count
        assert dataset.cat_ids == list(drawn.CATEGORIES)
    with open(drawn_set / "annotations/instances_train2017.json") as f:
        coco = json.load(f)
    for a in coco["annotations"]:
        image = coco["images"][a["image_id"] - 1]
        x, y, w, h = a["bbox"]
        assert 0 <= x < x + w <= image["width"] and 0 <= y < y + h <= image["height"]
        assert 0 < a["area"] <= w * h


def test_objects_do_not_overlap_and_are_where_their_mask_says():
    rng = np.random.default_rng(3)
    picture, objects = drawn.draw(rng, ellipses=True)
    assert len(objects) >= 2
    assert sum(mask for _, mask in objects).max() == 1
    assert all(mask.shape == picture.shape[:2] for _, mask in objects)


def test_another_set_is_not_taken_for_this_one(tmp_path, drawn_set):
    with pytest.raises(ValueError, match="num_train': 8.*num_train': 9"):
        drawn.make_coco(drawn_set, 9, 4, seed=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="other data"):
        drawn.make_coco(tmp_path, 8, 4, seed=0)


def test_nothing_half_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imwrite", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        drawn.make_coco(tmp_path / "set", 2, 2, seed=0)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def broken(tmp_path, drawn_set):
    return shutil.copytree(drawn_set, tmp_path / "broken")


def test_a_missing_picture_is_named(broken):
    (broken / "train2017/000000000003.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 8 .*000000000003.png"):
        build(broken)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_broken_picture_is_named(broken, content):
    (broken / "train2017/000000000003.png").write_bytes(content)
    with pytest.raises(ValueError, match="000000000003.png is broken"):
        build(broken)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_cut_picture_is_named(broken, kind):
    path = broken / "train2017/000000000003.png"
    Image.open(path).save(path, kind)
    content = path.read_bytes()
    build(broken)
    path.write_bytes(content[: len(content) * 4 // 5])
    with pytest.raises(ValueError, match="000000000003.png is broken"):
        build(broken)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "not a COCO annotation file"),
        ("[]", "not a COCO annotation file"),
        ("{}", "not a COCO annotation file"),
        ('{"images": [], "annotations": [], "categories": []}', "no objects"),
    ],
)
def test_an_empty_annotation_file_is_named(broken, content, named):
    (broken / "annotations/instances_train2017.json").write_text(content)
    with pytest.raises(ValueError, match=f"instances_train2017.json.*{named}"):
        build(broken)


def _twice(content):
    content["images"][2]["id"] = content["images"][0]["id"]


def _shifted(content):
    for annotation in content["annotations"]:
        annotation["category_id"] += 1


def _corners(content):
    for annotation in content["annotations"]:
        left, top, width, height = annotation["bbox"]
        annotation["bbox"] = [left, top, left + width, top + height]


def _swapped(content):
    for image in content["images"]:
        image["width"], image["height"] = image["height"], image["width"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_twice, r"have the id 1, 0+1\.png and 0+3\.png: boxes of one would stand"),
        (_shifted, r"26 annotations have a category_id .*: 14 \(4\), .*\. Listed are"),
        (_corners, r"\d+ of \d+ boxes leave .*: are they x, y, width, height"),
        (_swapped, r"of \d+x\d+: are they x, y|of 8 pictures have another size"),
    ],
)
def test_what_a_file_would_be_mistaken_for_is_said(broken, change, named):
    path = broken / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"instances_train2017.json: .*{named}"):
        build(broken)


def test_a_picture_of_another_size_than_stated_is_named(broken):
    path = broken / "train2017/000000000003.png"
    with Image.open(path) as picture:
        width, height = picture.size
        half = picture.resize((width // 2, height // 2))
    half.save(path)
    stated = f"{width}x{height}, the file has {width // 2}x{height // 2}"
    with pytest.raises(ValueError, match=f"1 of 8 .*0003.png, stated are {stated}"):
        build(broken)


def test_slow_files_are_sampled_and_it_is_said(broken, monkeypatch):
    monkeypatch.setattr(datasets, "_SECONDS", 0)
    said = []
    monkeypatch.setattr(datasets, "print_log", lambda text, *_: said.append(text))
    build(broken)
    assert "the sizes of 1 of 8 pictures were compared" in said[0]


def test_a_picture_that_is_turned_has_the_size_that_is_read(broken):
    path = broken / "train2017/000000000003.png"
    with Image.open(path) as picture:
        upright = picture.convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    jpeg = broken / "train2017/turned.jpg"
    upright.transpose(Image.Transpose.ROTATE_90).save(jpeg, exif=exif)
    assert cv2.imread(str(jpeg)).shape[:2] == upright.size[::-1]
    annotations = broken / "annotations/instances_train2017.json"
    text = annotations.read_text().replace("000000000003.png", "turned.jpg")
    annotations.write_text(text)
    build(broken)


def test_annotations_of_unlisted_pictures_are_counted(broken, monkeypatch):
    path = broken / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    gone = content["images"].pop()
    count = sum(a["image_id"] == gone["id"] for a in content["annotations"])
    path.write_text(json.dumps(content))
    said = []
    monkeypatch.setattr(datasets, "print_log", lambda text, *_: said.append(text))
    build(broken)
    (text,) = said
    assert f"{count} annotations are of pictures that it does not list" in text


def test_a_missing_annotation_file_is_named(broken):
    with pytest.raises(FileNotFoundError, match="instances_test2017.json"):
        build(broken, "test")


def test_a_folder_of_pictures_needs_no_labels(tmp_path):
    for name, size in (("b.png", (90, 40)), ("deep/a.JPG", (30, 50))):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "red").save(path)
    (tmp_path / "pictures/notes.txt").write_text("no picture")
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="RandomDownscale", low=0.5),
        dict(type="PackDetInputs"),
    ]
    folder = dict(type="PictureFolder", folders=str(tmp_path / "pictures"))
    init_default_scope("mmdet")
    dataset = DATASETS.build({**folder, "pipeline": pipeline})
    assert [d["img_path"][-5:] for d in map(dataset.get_data_info, (0, 1))] == [
        "b.png",
        "a.JPG",
    ]
    assert dataset.get_data_info(0)["width"] == 90  # AspectRatioBatchSampler asks
    np.random.seed(0)
    widths = set()
    for _ in range(20):
        data = dataset[0]
        height, width = data["inputs"].shape[1:]
        assert data["data_samples"].img_shape == (height, width)
        assert data["data_samples"].scale_factor == (1.0, 1.0)  # it is the original
        assert width / height == pytest.approx(90 / 40, rel=0.05)
        widths.add(width)
    assert 45 <= min(widths) < 60 and 75 < max(widths) <= 90

    (tmp_path / "empty").mkdir()
    for folders, named in (([], "got none"), ([str(tmp_path / "empty")], "in .*empty")):
        with pytest.raises(FileNotFoundError, match=named):
            DATASETS.build({**folder, "folders": folders, "pipeline": []})
    (tmp_path / "pictures/c.png").write_text("x")
    with pytest.raises(ValueError, match=r"c\.png is broken"):
        DATASETS.build({**folder, "pipeline": []})
    with pytest.raises(ValueError, match="low must be over 0 and at most 1, got 0"):
        RandomDownscale(0)


def test_scales_leave_room_for_a_crop():
    picture = np.zeros((200, 400, 3), np.uint8)
    np.random.seed(0)
    sizes = set()
    for _ in range(40):
        results = dict(img=picture, img_shape=(200, 400))
        transform = RandomDownscale(0.25, least=120, keep=0.5)
        sizes.add(transform(results)["img"].shape[0])
    assert 120 <= min(sizes) < 140 and 200 in sizes and len(sizes) > 10


def test_decoded_pictures_are_kept_and_shared(tmp_path, monkeypatch):
    rng, paths = np.random.default_rng(0), []
    for number in range(4):
        paths.append(str(tmp_path / f"{number}.png"))
        pixels = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    load = LoadCachedImage(cache_bytes=3 * 30 * 50 * 3)
    expected = [LoadCachedImage()(dict(img_path=path)) for path in paths]

    def check(order):
        for number in order:
            found = load(dict(img_path=paths[number], more=1))
            assert found.pop("more") == 1 and found["img"].flags.writeable
            found["img"][:] += 0
            np.testing.assert_equal(found, expected[number])

    worker = multiprocessing.get_context("fork").Process(target=check, args=([2, 0],))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    for path in (paths[0], paths[2]):  # the worker has kept them
        Path(path).unlink()
    check([0, 2, 1, 3, 3, 1])
    Path(paths[1]).unlink()
    check([1, 0])
    Path(paths[3]).unlink()  # for which there was no room
    with pytest.raises(FileNotFoundError):
        load(dict(img_path=paths[3]))
    again = pickle.loads(pickle.dumps(load))
    assert again.cache.get(paths[0]) is None
    with pytest.raises(ValueError, match="cache_bytes=1,000,000,000,000,000 must"):
        LoadCachedImage(cache_bytes=10**15)


def test_a_folder_of_pictures_is_searched_by_content(tmp_path):
    for name in (".hidden/a.png", "._b.png", "b.dat", "c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), "red").save(path, "PNG")
    (tmp_path / "film.mpg").write_bytes(b"\0\0\1\xb3" + bytes(200))
    Image.new("RGB", (9, 9)).save(tmp_path / "page.eps")
    Image.new("RGB", (9, 9)).save(tmp_path / "x.psd.qoi")  # OpenCV reads none
    init_default_scope("mmdet")
    folder = dict(type="PictureFolder", folders=str(tmp_path))
    load = [dict(type="LoadImageFromFile"), dict(type="PackDetInputs")]
    dataset = DATASETS.build({**folder, "pipeline": load})
    assert [Path(d["img_path"]).name for d in map(dataset.get_data_info, (0, 1))] == [
        "b.dat",
        "c.png",
    ]
    assert len(dataset) == 2 and dataset[0]["inputs"].shape == (3, 9, 9)


def test_a_folder_of_pictures_follows_links(tmp_path):
    folder, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    Image.new("RGB", (9, 9)).save(elsewhere / "a.png")
    (folder / "linked").symlink_to(elsewhere)
    init_default_scope("mmdet")
    config = dict(type="PictureFolder", folders=str(folder), pipeline=[])
    dataset = DATASETS.build(config)
    assert dataset.get_data_info(0)["img_path"] == str(folder / "linked/a.png")
    (folder / "b.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match=r"b\.png is a link to .*gone\.png"):
        DATASETS.build(config)
