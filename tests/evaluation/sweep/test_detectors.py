from pathlib import Path

import pytest
from mmdet.structures import DetDataSample
from mmengine.runner import Runner

from compressai_hm.detection.load import load_detector
from compressai_hm.evaluation.sweep import PictureSet, read_picture
from compressai_hm.evaluation.sweep.detectors import build_detector

from ..conftest import finish


@pytest.mark.parametrize("letterbox", [False, True])
def test_uncompressed_is_exactly_mmdetections_own_map(cfg, tmp_path, letterbox):
    """A lossless codec through the whole chain, against MMDetection's test runner."""
    steps = [dict(type="Resize", scale=(192, 192), keep_ratio=True)]
    if letterbox:
        steps.append(dict(type="Pad", size=(192, 192), pad_val=dict(img=(114,) * 3)))
    detector = cfg.sets[0].detectors[0]
    detector.config.test_pipeline = steps
    cfg.sets, cfg.codecs = cfg.sets[:1], cfg.codecs[:1]
    cfg.codecs[0].qualities = [50]
    *_, reference = finish(cfg, tmp_path / "w")

    dataset = {**cfg.sets[0].dataset, "test_mode": True}
    dataset["pipeline"] = [
        dict(type="LoadImageFromFile"),
        *steps,
        dict(type="LoadAnnotations", with_bbox=True),
        dict(
            type="PackDetInputs",
            meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor"),
        ),
    ]
    loader = dict(
        batch_size=1,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type="DefaultSampler", shuffle=False),
    )
    ann_file = str(Path(dataset["data_root"], dataset["ann_file"]))
    runner = Runner(
        model=detector.config.model,
        work_dir=str(tmp_path / "plain"),
        test_dataloader=loader,
        test_evaluator=dict(type="CocoMetric", ann_file=ann_file, metric="bbox"),
        test_cfg=dict(type="TestLoop"),
        default_scope="mmdet",
        log_level="ERROR",
    )

    load_detector(runner.model, detector.checkpoint)
    expected = runner.test()["coco/bbox_mAP"]
    assert expected > 0.3
    assert round(reference["drawn"]["mAP Faster R-CNN R18"], 3) == expected


def test_the_differentiable_path_is_close_to_testing(cfg):
    """What the loss sees in training, against the detector's own test pipeline."""
    entry = cfg.sets[0]
    own, detector = PictureSet(entry), build_detector(entry.detectors[0])
    for _, path in own.pictures:
        x = read_picture(path)
        tested = detector.view.prepare_testing(x[0] / 255, DetDataSample())["inputs"]
        sample = DetDataSample(metainfo=dict(img_shape=x.shape[-2:]))
        trained, _ = detector.view.prepare_training(x[0] / 255, sample)
        assert (trained - tested).abs().mean() < 0.5  # gray levels
