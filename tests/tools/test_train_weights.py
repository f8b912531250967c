import runpy
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from compressai_hm import StreamReader, load_reader
from compressai_hm.detection.frozen_detector import FrozenDetector
from compressai_hm.models.latent_backbone import LatentBackbone

from ..detection.tiny import ROOT


def test_the_person_detector_is_the_rounded_last_checkpoint(tmp_path, monkeypatch):
    tool = runpy.run_path(str(ROOT / "tools/train_weights.py"))
    started = []
    init_default_scope("mmdet")
    monkeypatch.setitem(
        tool["person"].__globals__,
        "train",
        lambda *args, **kw: started.append(args),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tool["released"], "WEIGHTS", tmp_path)
    config = ROOT / "mmdet_configs/person/rtmdet_mobilenetv2.py"
    own = FrozenDetector(str(config), "", None)
    own.build()
    weights = own.module.state_dict()
    weights["bbox_head.rtm_cls.0.bias"] += 0.1
    for folder, epoch in (("distilled", 18), ("448", 1), ("448", 2)):
        folder = tmp_path / f"work_dirs/person_{folder}"
        folder.mkdir(parents=True, exist_ok=True)
        saved = dict(meta=dict(iter=epoch, epoch=epoch), optimizer={}, state_dict={})
        saved["state_dict"] = weights if epoch == 2 else {}
        torch.save(saved, folder / f"epoch_{epoch}.pth")
    tool["person"]()
    assert [Path(config).stem for (config,) in started] == [
        "rtmdet_mobilenetv2_distilled",
        "rtmdet_mobilenetv2_448",
    ]
    path = tmp_path / "person_detector.pth"
    assert path.stat().st_size < 12e6
    assert path.name in (tmp_path / "SHA256SUMS").read_text()
    shipped = FrozenDetector(str(config), str(path), None)
    shipped.build()
    shipped.load()
    for key, value in shipped.module.state_dict().items():
        rounded = weights[key].half() if value.is_floating_point() else weights[key]
        assert torch.equal(value, rounded.to(value)), key


def test_readers_are_trained_for_each_of_the_weights(tmp_path, monkeypatch):
    tool = runpy.run_path(str(ROOT / "tools/train_weights.py"))
    started, codec = [], torch.nn.Linear(1, 1)
    names = tool["latent"].__globals__
    monkeypatch.setitem(names, "train", lambda *args, **kw: started.append(kw))
    monkeypatch.setitem(names, "load_model", lambda *args, **kw: codec)
    monkeypatch.setattr(tool["released"], "WEIGHTS", tmp_path)
    monkeypatch.setenv("METRIC", "")
    monkeypatch.chdir(tmp_path)
    for i, metric in enumerate(("mse", "person")):
        folder = tmp_path / f"work_dirs/person_latent_{metric}"
        folder.mkdir(parents=True)
        saved = dict(meta=dict(iter=1, epoch=1), optimizer={}, state_dict={})
        saved["state_dict"]["detector.neck.a"] = torch.tensor([float(i)])
        torch.save(saved, folder / "epoch_1.pth")
        backbone = LatentBackbone(8, [4], [8], widths=(8,), depths=(1,))
        backbone.laterals[0].bias.data.fill_(i)
        StreamReader("people", "y_hat", "s", backbone).save(folder / "people.reader")
    tool["latent"]()
    for i, name in enumerate(("hm-compact", "hm-compact-person")):
        reader = load_reader(tmp_path / f"{name}.people.reader")
        assert (reader.net.laterals[0].bias == i).all()
    rest = torch.load(tmp_path / "hm-compact.people.pth", weights_only=True)
    assert rest["state_dict"] == {"neck.a": torch.zeros(1)}  # of the first
    first, second = (own["options"] for own in started)
    assert not first and "model.trainable=(latent_backbone,)" in second
    start = torch.load("work_dirs/person_latent_person.pth", weights_only=True)
    assert torch.equal(start["state_dict"]["codec.bias"], codec.bias)
