import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData

from compressai_hm.detection import DetectorView
from compressai_hm.detection.view import find_resize

from . import tiny

RESIZES = {
    "keep_ratio": dict(scale=(133, 80)),
    "stretch": dict(scale=(90, 70), keep_ratio=False),
    "letterbox": dict(scale=(96, 96), pad_to_square=True, pad_val=114),
    "divisor": dict(scale=(100, 60), size_divisor=32),
    "none": dict(),
}
resizes = pytest.mark.parametrize("resize", RESIZES.values(), ids=RESIZES)


@resizes
@pytest.mark.parametrize("size", [(37, 61), (120, 75)])
def test_training_and_testing_agree(resize, size):
    """The differentiable path gives MMDetection's sizes and nearly its pixels."""
    view = DetectorView(**resize)
    yy, xx = np.mgrid[: size[0], : size[1]] / 20
    smooth = torch.tensor(np.stack([np.sin(yy), np.cos(xx), np.sin(xx + yy)]))
    picture = ((smooth.float() / 2 + 0.5) * 255).round() / 255
    trained, trained_sample = view.prepare_training(picture, tiny.sample(*size))
    tested = view.prepare_testing(picture, tiny.sample(*size))
    assert trained.shape == tested["inputs"].shape
    assert (trained - tested["inputs"]).abs().mean() < 1
    for key in ("img_shape", "scale_factor"):
        expected = tested["data_samples"].metainfo[key]
        assert trained_sample.metainfo[key] == pytest.approx(tuple(expected))


@resizes
def test_boxes_and_masks_land_on_the_object(resize):
    """A white object on black: its box and mask hold the white, and little else."""
    box, ignored = (20, 12, 52, 36), (60, 4, 70, 30)
    picture = torch.zeros(3, 48, 80)
    picture[:, 12:36, 20:52] = 1
    sample = tiny.sample(48, 80, boxes=(box,), ignored=(ignored,))
    view, moved = DetectorView(**resize).prepare_training(picture, sample)
    white = (view[0] > 200).float()
    x1, y1, x2, y2 = moved.gt_instances.bboxes[0].round().int().tolist()
    assert white[y1:y2, x1:x2].mean() > 0.9
    assert white[y1:y2, x1:x2].sum() > 0.95 * white.sum()
    mask = torch.tensor(moved.gt_instances.masks.masks[0]).float()
    assert mask.shape == white.shape
    assert (mask * white).sum() > 0.9 * mask.sum() > 0
    scale = view.new_tensor(moved.scale_factor * 2)
    expected = view.new_tensor(ignored) * scale
    assert torch.allclose(moved.ignored_instances.bboxes[0], expected)
    assert sample.gt_instances.bboxes[0].tolist() == list(box)  # not changed
    assert sample.img_shape == (48, 80)


@resizes
def test_semantic_labels_and_proposals_follow(resize):
    sample = tiny.sample(48, 80)
    labels = torch.zeros(1, 48, 80, dtype=torch.long)
    labels[:, 12:36, 20:52] = 7
    sample.gt_sem_seg = PixelData(sem_seg=labels)
    box = torch.tensor([[20.0, 12, 52, 36]])
    sample.proposals = InstanceData(bboxes=box)
    picture = (labels == 7).float().expand(3, -1, -1)
    view, moved = DetectorView(**resize).prepare_training(picture, sample)
    seg = moved.gt_sem_seg.sem_seg[0]
    assert seg.shape == view.shape[1:] and seg.dtype == torch.long
    assert ((seg == 7) == (view[0] > 127))[seg != 255].float().mean() > 0.97
    assert (seg == 255).sum() == seg.numel() - np.prod(
        DetectorView(**resize).sizes(48, 80)[0]
    )
    scaled = box * box.new_tensor(moved.scale_factor * 2)
    assert torch.equal(moved.proposals.bboxes, scaled)


def test_gradients_and_padding():
    picture = torch.rand(3, 20, 40, requires_grad=True)
    view, _ = DetectorView(
        scale=(64, 64), pad_to_square=True, pad_val=114
    ).prepare_training(picture, tiny.sample(20, 40))
    assert (view[:, 32:] == 114).all()
    view[:, :32].sum().backward()
    assert picture.grad.min() > 0


def test_channels_are_bgr():
    picture = torch.zeros(3, 8, 8)
    picture[0] = 1  # red
    view, _ = DetectorView().prepare_training(picture, tiny.sample(8, 8))
    assert view[:, 0, 0].tolist() == [0, 0, 255]
    tested = DetectorView().prepare_testing(picture, tiny.sample(8, 8))
    assert tested["inputs"][:, 0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", dict(scale=(1333, 800))),
        (
            "yolox/yolox_nano_8xb8-300e_coco.py",
            dict(scale=(416, 416), pad_to_square=True, pad_val=(114.0,) * 3),
        ),
        (
            "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
            dict(scale=(640, 640), pad_to_square=True, pad_val=(114,) * 3),
        ),
        ("detr/detr_r50_8xb2-150e_coco.py", dict(scale=(1333, 800))),
    ],
)
def test_the_detectors_own_resize_is_found(config, expected):
    from mmengine.hub import get_config

    resize = find_resize(get_config(f"mmdet::{config}").test_pipeline)
    assert resize["keep_ratio"]
    for key, value in expected.items():
        assert resize[key] == value
    view = DetectorView(**resize)
    if "pad_val" in expected:
        _, (h, w) = view.sizes(480, 640)
        assert h == w == expected["scale"][0]


def test_what_cannot_be_done_is_said():
    for step in (dict(scale_factor=1.0), dict(scale=(8, 8), backend="pillow")):
        with pytest.raises(ValueError, match="model.resize"):
            find_resize([dict(type="mmdet.Resize", **step)])
    with pytest.raises(ValueError, match="Mosaic"):
        find_resize([dict(type="LoadImageFromFile"), dict(type="Mosaic")])
    with pytest.raises(ValueError, match="size_divisors"):
        DetectorView(size_divisors=32)
