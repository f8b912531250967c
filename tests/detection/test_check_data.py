"""What of the data does not fit is said before any work."""

import json
import re
import shutil

import _launch
import pytest
import torch
from mmengine.hooks import Hook
from PIL import Image

from compressai_hm.detection.datasets import drawn

from . import tiny

NAMES = tuple(drawn.CATEGORIES.values())


class NoWork(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        raise AssertionError("work has begun")

    before_val_iter = before_test_iter = before_train_iter


def run(cfg, what="train"):
    cfg.custom_hooks = []
    cfg.default_hooks.pop("checkpoint")
    runner = _launch.build_runner(cfg)
    runner.register_hook(NoWork())
    getattr(runner, what)()


def assert_works(cfg, what="train"):
    with pytest.raises(AssertionError, match="work has begun"):
        run(cfg, what)


@pytest.fixture
def cfg(tmp_path, drawn_set):
    cfg = tiny.config(tmp_path / "run", drawn_set)
    cfg.experiment_name = tmp_path.name
    return cfg


def of_classes(cfg, *names):
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.metainfo = dict(classes=names)


def trained_for(cfg, names, folder):
    """The detector's checkpoint, as MMEngine writes it."""
    model = tiny.model(detector=tiny.faster_rcnn())
    saved = {"state_dict": model.detector.state_dict(), "meta": {}}
    if names:
        saved["meta"]["dataset_meta"] = {"classes": names}
    torch.save(saved, folder / "detector.pth")
    cfg.model.detector_checkpoint = str(folder / "detector.pth")


def test_what_fits_works(cfg, tmp_path):
    trained_for(cfg, NAMES, tmp_path)
    assert_works(cfg)
    assert_works(cfg, "test")


@pytest.mark.parametrize("what", ["train", "val", "test"])
def test_another_number_of_classes(cfg, what):
    of_classes(cfg, NAMES[0])
    told = f"{what}_dataloader.* has 1 classes .{NAMES[0]}.*bbox_head 8"
    with pytest.raises(ValueError, match=told):
        run(cfg, what)


@pytest.mark.parametrize("names", [NAMES[::-1], ("person", *NAMES[1:])])
def test_other_names_than_the_detector_was_trained_for(cfg, tmp_path, names):
    trained_for(cfg, names, tmp_path)
    with pytest.raises(ValueError, match=f"trained for .{names[0]}"):
        run(cfg)
    weights = tiny.model(detector=tiny.faster_rcnn()).state_dict()
    saved = {"state_dict": weights, "meta": {"detector_classes": names}}
    torch.save(saved, tmp_path / "hm.pth")
    cfg.load_from = str(tmp_path / "hm.pth")
    with pytest.raises(ValueError, match=f"trained for .{names[0]}"):
        run(cfg, "test")


def test_a_plain_detector_is_tested_on_what_it_was_trained_for(cfg, tmp_path):
    trained_for(cfg, NAMES[::-1], tmp_path)
    cfg.load_from = cfg.model.detector_checkpoint
    cfg.model = cfg.model.detector
    cfg.test_evaluator = [cfg.test_evaluator[0]]
    with pytest.raises(ValueError, match=f"trained for .{NAMES[-1]}"):
        run(cfg, "test")


def test_what_asks_for_no_labels_takes_any_classes(cfg):
    of_classes(cfg, NAMES[0])
    cfg.val_evaluator = [cfg.val_evaluator[1]]
    detector = cfg.model.detector
    for losses in (dict(features=1.0), dict(objects=1.0)):
        cfg.model.machine_losses = losses
        assert_works(cfg)
    cfg.model.machine_losses = dict(labels=1.0)
    cfg.model.lambda_machine = 0.0
    assert_works(cfg)
    cfg.model.lambda_machine = 1.0
    with pytest.raises(ValueError, match="has 1 classes"):
        run(cfg)
    cfg.model.detector = None
    assert_works(cfg)
    cfg.model.detector = detector
    cfg.val_evaluator = cfg.test_evaluator
    cfg.model.machine_losses = dict(features=1.0)
    with pytest.raises(ValueError, match="val_dataloader.* has 1 classes"):
        run(cfg)


def test_a_detector_of_a_loss_is_looked_at(cfg, tmp_path):
    trained_for(cfg, NAMES[::-1], tmp_path)
    own = dict(
        detector=cfg.model.detector, checkpoint=cfg.model.pop("detector_checkpoint")
    )
    cfg.model.machine_losses = [dict(type="DetectorLoss"), dict(type="FeatureLoss")]
    cfg.model.machine_losses[1].update(own)
    assert_works(cfg)  # no labels are asked of it
    cfg.model.machine_losses[0].update(own)
    told = f"model.machine_losses' FasterRCNN was trained for .{NAMES[-1]}"
    with pytest.raises(ValueError, match=told):
        run(cfg)
    cfg.model.detector = None
    cfg.val_evaluator = [cfg.val_evaluator[1]]
    with pytest.raises(ValueError, match=told):
        run(cfg)
    of_classes(cfg, NAMES[0])
    with pytest.raises(ValueError, match="1 classes.* FasterRCNN's roi_head.bbox_head"):
        run(cfg)
    cfg.model.machine_losses.pop(0)
    assert_works(cfg)


def test_a_codec_alone_has_no_boxes_to_compare(cfg):
    cfg.model.detector = None
    with pytest.raises(ValueError, match="CocoMetric needs a detector"):
        run(cfg)


def test_pictures_without_labels_have_no_boxes(cfg, drawn_set):
    cfg.train_dataloader.batch_sampler = None
    cfg.train_dataloader.dataset = dict(
        type="PictureFolder",
        folders=[f"{drawn_set}/train2017"],
        pipeline=[dict(type="LoadImageFromFile"), dict(type="PackDetInputs")],
    )
    for losses in (dict(labels=1.0), dict(objects=1.0)):
        cfg.model.machine_losses = losses
        with pytest.raises(ValueError, match="PictureFolder has no classes"):
            run(cfg)
    cfg.model.machine_losses = dict(features=1.0)
    assert_works(cfg)


def test_the_parts_of_a_data_set_are_looked_at(cfg):
    dataset = cfg.train_dataloader.dataset
    other = {**dataset, "metainfo": dict(classes=(NAMES[0],))}
    cfg.train_dataloader.dataset = dict(
        type="ConcatDataset", datasets=[dataset, other], ignore_keys=["classes"]
    )
    with pytest.raises(ValueError, match="has 1 classes"):
        run(cfg)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("kite", r"got 'kite'; of one class it is \('kite',\)"),
        (NAMES[::-1], "in this order"),
        ((NAMES[0], "persn"), rf"'persn'.* in this order: \['{NAMES[0]}'\]"),
    ],
)
def test_classes_that_the_file_does_not_list_so(cfg, names, told):
    cfg.train_dataloader.dataset.metainfo = dict(classes=names)
    with pytest.raises(ValueError, match=told):
        run(cfg)


def by_iteration(cfg):
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=4)
    cfg.log_processor.by_epoch = False
    cfg.param_scheduler = []


@pytest.mark.parametrize("change", [lambda cfg: None, by_iteration])
def test_fewer_pictures_than_a_batch(cfg, change):
    change(cfg)
    cfg.train_dataloader.batch_size = 16
    with pytest.raises(ValueError, match="8 pictures, fewer than a batch of 16"):
        run(cfg)
    cfg.train_dataloader.batch_sampler.drop_last = False
    assert_works(cfg)


@pytest.fixture
def changed(cfg, tmp_path, drawn_set):
    """Changes an annotation file of a copy of the set."""
    root = shutil.copytree(drawn_set, tmp_path / "set")

    def change(split, edit):
        path = root / f"annotations/instances_{split}2017.json"
        truth = json.loads(path.read_text())
        edit(truth)
        path.write_text(json.dumps(truth))
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.type = "CheckedCocoDataset"
            loader.dataset.data_root = str(root)
            for key in ("num_train", "num_val"):
                loader.dataset.pop(key)
            loader.dataset.metainfo = dict(classes=NAMES)
        for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
            evaluator[0].ann_file = str(root / "annotations/instances_val2017.json")

    return change


def without_masks(truth):
    for annotation in truth["annotations"]:
        del annotation["segmentation"]


def test_masks_that_are_wanted_and_absent(cfg, changed):
    changed("train", without_masks)
    changed_val = cfg.copy()
    with pytest.raises(ValueError, match=r"objects have no segmentation; set Load"):
        run(cfg)
    cfg = changed_val
    cfg.train_dataloader.dataset.pipeline[1].with_mask = False
    assert_works(cfg)
    cfg.model.detector = tiny.mask_rcnn()
    with pytest.raises(ValueError, match="loads no masks, which MaskRCNN learns from"):
        run(cfg)


def test_masks_to_compare_with(cfg, changed):
    changed("val", without_masks)
    cfg.test_dataloader.dataset.pipeline[1].with_mask = False
    assert_works(cfg, "test")
    cfg.test_evaluator[0].metric = ["bbox", "segm"]
    with pytest.raises(ValueError, match=r'no segmentation.*metric="bbox"'):
        run(cfg, "test")


def test_names_that_a_voc_like_set_leaves_out_are_told(cfg, tmp_path):
    voc = tmp_path / "voc"
    for folder in ("Annotations", "JPEGImages"):
        (voc / folder).mkdir(parents=True)
    item = "<object><name>{}</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>60</xmax>"
    item += "<ymax>60</ymax></bndbox></object>"
    size = "<size><width>128</width><height>96</height></size>"
    for number, names in {"a": [NAMES[0], "Kite"], "b": ["Kite"], "c": ["cat"]}.items():
        objects = "".join(map(item.format, names))
        text = f"<annotation>{size}{objects}</annotation>"
        (voc / f"Annotations/{number}.xml").write_text(text)
        Image.new("RGB", (128, 96)).save(voc / f"JPEGImages/{number}.jpg")
    (voc / "list.txt").write_text("a\nb\nc\n")
    cfg.train_dataloader.dataset = dict(
        type="XMLDataset",
        data_root=str(voc),
        ann_file="list.txt",
        data_prefix=dict(sub_data_root=""),
        metainfo=dict(classes=NAMES),
        pipeline=cfg.train_dataloader.dataset.pipeline,
    )
    cfg.train_dataloader.batch_size = 1
    assert_works(cfg)
    (log,) = (tmp_path / "run").glob("*/*.log")
    told = "XMLDataset: 3 objects are left out, .*: 'Kite' \\(2\\), 'cat' \\(1\\)"
    assert re.search(told, log.read_text())


def test_a_list_of_pictures_at_test(cfg, changed, tmp_path):
    changed("val", lambda truth: truth.pop("annotations"))
    with pytest.raises(ValueError, match="no annotations; CocoMetric needs them"):
        run(cfg, "test")
    cfg.test_evaluator[0].update(format_only=True, outfile_prefix=str(tmp_path / "o"))
    assert_works(cfg, "test")
