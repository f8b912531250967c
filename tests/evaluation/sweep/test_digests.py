"""What was measured stays measured: these literals are those of finished sweeps."""

import json
import shutil

import pytest
import torch
from mmengine.config import Config

from compressai_hm import Bitstream
from compressai_hm.evaluation.sweep import Point, Sweep, sweep_codec
from compressai_hm.zoo import released


def test_finished_points_and_streams_still_count(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_codec, "__version__", "0")
    monkeypatch.setattr(sweep_codec, "VERSION", 1)
    monkeypatch.setattr(sweep_codec.importlib.metadata, "version", lambda name: "1")
    picture = tmp_path / "x.ppm"
    picture.write_bytes(b"P6 2 1 255\n" + bytes(range(6)))
    (tmp_path / "codec.pth").write_bytes(b"weights")
    (tmp_path / "detector.pth").write_bytes(b"detector")
    box = dict(id=1, image_id=7, category_id=3, bbox=[0, 0, 1, 1], area=1, iscrowd=0)
    truth = dict(
        images=[dict(id=7, file_name=picture.name, width=2, height=1)],
        annotations=[box],
        categories=[dict(id=3, name="person")],
    )
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    resize = dict(type="Resize", scale=(8, 8), keep_ratio=True)
    detector = dict(
        name="D",
        config=dict(model=dict(type="FasterRCNN"), test_pipeline=[resize]),
        checkpoint=str(tmp_path / "detector.pth"),
    )
    dataset = dict(
        type="CocoDataset",
        metainfo=dict(classes=("person",)),
        ann_file=str(tmp_path / "truth.json"),
        data_prefix=dict(img=str(tmp_path)),
    )
    weights = [str(tmp_path / "codec.pth")]
    cfg = dict(
        anchor="JPEG",
        codecs=[
            dict(name="JPEG", type="jpeg", qualities=[30]),
            dict(name="HM", checkpoints=weights),
            dict(name="zoo", type="hm-mbt2018", qualities=[2]),
        ],
        sets=[
            dict(name="folder", pictures=str(tmp_path)),
            dict(name="coco", dataset=dataset, detectors=[detector]),
        ],
    )
    sweep = Sweep(Config(cfg), tmp_path / "w")
    assert {(p.codec, p.set): sweep.digest(p) for p in sweep.points()} == {
        (-1, 1): "9ea3a234",
        (0, 0): "3b36fffe",
        (1, 0): "21e56131",
        (2, 0): "0e6bee6b",
        (0, 1): "aec0ad7d",
        (1, 1): "b41333b2",
        (2, 1): "9b9dbce8",
    }
    streams = sweep.work_dir / "streams"
    for codec, quality, name in ((0, 30, "JPEG/30-5afe9f9b"), (1, 0, "HM/0-164f91fb")):
        file = sweep.stream_file(Point(codec, quality, 0), picture)
        assert file == streams / name / "x.ppm-b9b69adb"


def test_a_finished_point_is_found_by_its_digest(cfg, tmp_path):
    cfg.sets, cfg.codecs = cfg.sets[1:], cfg.codecs[:1]
    sweep = Sweep(cfg, tmp_path / "w")
    point = sweep.points()[0]
    file = sweep.result_file(point)
    assert file == tmp_path / "w/points/JPEG/10/people.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"digest": sweep.digest(point), "pictures": []}))
    assert [p for p, _ in sweep.finished()] == [point]
    file.write_text(json.dumps({"digest": "00000000", "pictures": []}))
    assert not list(sweep.finished())


def test_the_metric_of_weights_is_in_digests_files_and_checks(tmp_path, monkeypatch):
    name = "hm-compact"
    entry = dict(name="a", type=name, qualities=[4])
    person = dict(entry, metric="person")
    assert sweep_codec.check_codec(person) == [4]
    before = sweep_codec.codec_digest(person, 4)
    assert sweep_codec.codec_digest(entry, 4) != before
    x = torch.randint(0, 255, (1, 3, 40, 70), dtype=torch.uint8)
    stream = Bitstream.read(sweep_codec.build_coder(person, 4).encode(x))
    assert (stream.quality, stream.metric) == (4, "person")
    weights = tmp_path / "weights"
    shutil.copytree(released.WEIGHTS, weights)
    (weights / f"{name}-person.npz").write_bytes(b"other")
    monkeypatch.setattr(released, "WEIGHTS", weights)
    assert sweep_codec.codec_digest(person, 4) != before
    with pytest.raises(ValueError, match="metric must be one of .* got 'persons'"):
        sweep_codec.check_codec(dict(entry, metric="persons"))
    with pytest.raises(ValueError, match="metric='person' is for zoo entries alone"):
        sweep_codec.check_codec(
            dict(name="a", type="jpeg", qualities=[5], metric="person")
        )


def test_other_reference_software_codes_anew(tmp_path):
    paths = {part: tmp_path / part for part in ("encoder", "decoder", "config")}
    for path in paths.values():
        path.write_text("first")
    entry = dict(name="HM", type="hevc-hm", qualities=[32, 37])
    entry.update({part: str(path) for part, path in paths.items()})
    assert sweep_codec.check_codec(entry) == [32, 37]
    seen = {sweep_codec.codec_digest(entry, 32)}
    for path in paths.values():
        path.write_text("second")
        seen.add(sweep_codec.codec_digest(entry, 32))
    assert len(seen) == 4
