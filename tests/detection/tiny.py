"""Models, data and configs small enough to run in seconds."""

import copy
from pathlib import Path

import numpy as np
import torch
from compressai.models import CompressionModel
from compressai.registry import register_model
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn

import compressai_hm.detection  # noqa: F401
from compressai_hm import HumanMachineMixin
from compressai_hm.entropy.families import MeanScaleFamily

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "mmdet_configs"
CODEC = dict(type="hm-mbt2018-mean", N=8, M=12, g_t_width=4, g_t_downscale=2)


@register_model("hm-test-lossless")
class Lossless(HumanMachineMixin, CompressionModel):
    """Its bitstream is the picture."""

    entropy_family = MeanScaleFamily  # which it never asks

    def __init__(self):
        super().__init__(g_t_width=0)
        self.g_a = nn.Conv2d(3, 3, 1)
        self.g_s = nn.Conv2d(3, 3, 1)

    def compress(self, x):
        picture = (x[0] * 255).round().byte().numpy()
        return {"strings": [[picture.tobytes()], [b""]], "shape": picture.shape[1:]}

    def decompress(self, strings, shape, views=("human", "machine")):
        flat = torch.frombuffer(bytearray(strings[0][0]), dtype=torch.uint8)
        x = flat.reshape(1, 3, *shape).float() / 255
        return {"x_hat": x, "x_bar": x}


def faster_rcnn(**changes) -> dict:
    detector = Config.fromfile(CONFIGS / "_base_/models/demo_detector.py").detector
    detector.backbone.base_channels = 8
    detector.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    detector.rpn_head.update(in_channels=16, feat_channels=16)
    detector.roi_head.bbox_roi_extractor.out_channels = 16
    detector.roi_head.bbox_head.update(in_channels=16, fc_out_channels=16)
    detector.update(changes)
    return detector.to_dict()


def mask_rcnn() -> dict:
    detector = copy.deepcopy(faster_rcnn(type="MaskRCNN"))
    detector["data_preprocessor"]["pad_mask"] = True
    head = detector["roi_head"]
    head["mask_roi_extractor"] = dict(
        type="SingleRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=2),
        out_channels=16,
        finest_scale=16,
        featmap_strides=[4, 8, 16],
    )
    head["mask_head"] = dict(
        type="FCNMaskHead",
        num_convs=1,
        in_channels=16,
        conv_out_channels=8,
        num_classes=8,
        loss_mask=dict(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0),
    )
    detector["train_cfg"]["rcnn"]["mask_size"] = 28
    detector["test_cfg"]["rcnn"]["mask_thr_binary"] = 0.5
    return detector


def yolox(**batch_augment) -> dict:
    """Letterboxes in its config; here only the model."""
    return dict(
        type="YOLOX",
        data_preprocessor=dict(
            type="DetDataPreprocessor",
            pad_size_divisor=32,
            batch_augments=[dict(type="BatchSyncRandomResize", **batch_augment)]
            if batch_augment
            else None,
        ),
        backbone=dict(
            type="CSPDarknet", deepen_factor=0.33, widen_factor=0.125,
            out_indices=(2, 3, 4),
        ),
        neck=dict(
            type="YOLOXPAFPN", in_channels=[32, 64, 128], out_channels=16,
            num_csp_blocks=1,
        ),
        bbox_head=dict(
            type="YOLOXHead", num_classes=8, in_channels=16, feat_channels=16,
            stacked_convs=1,
        ),
        train_cfg=dict(assigner=dict(type="SimOTAAssigner", center_radius=2.5)),
        test_cfg=dict(score_thr=0.01, nms=dict(type="nms", iou_threshold=0.65)),
    )  # fmt: skip


def model(codec=None, detector=None, **kwargs):
    init_default_scope("mmdet")
    kwargs.setdefault("resize", dict(scale=(96, 96)))
    latent = kwargs.get("task_view") == "y_hat"
    return MODELS.build(
        dict(
            type="LatentHumanMachineDetector" if latent else "HumanMachineDetector",
            codec=codec or CODEC,
            detector=detector,
            **kwargs,
        )
    )


def sample(height, width, boxes=((8, 10, 40, 30),), ignored=()):
    """Annotations of a picture, with masks that fill the boxes."""
    s = DetDataSample()
    s.set_metainfo(
        dict(
            img_id=1,
            img_path="a.png",
            ori_shape=(height, width),
            img_shape=(height, width),
        )
    )
    for field, listed in (("gt_instances", boxes), ("ignored_instances", ignored)):
        masks = np.zeros((len(listed), height, width), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, listed, strict=True):
            mask[y1:y2, x1:x2] = 1
        instances = InstanceData(
            bboxes=torch.tensor(listed, dtype=torch.float32).reshape(-1, 4),
            labels=torch.zeros(len(listed), dtype=torch.long),
        )
        instances.masks = BitmapMasks(masks, height, width)
        setattr(s, field, instances)
    return s


def batch(*sizes, **kwargs) -> dict:
    """What a loader gives: random BGR pictures and their annotations."""
    sizes = sizes or ((64, 96), (96, 64))
    return dict(
        inputs=[torch.randint(0, 256, (3, h, w), dtype=torch.uint8) for h, w in sizes],
        data_samples=[sample(h, w, **kwargs) for h, w in sizes],
    )


def config(work_dir, data_root, **changes) -> Config:
    """The demo's config, tiny."""
    cfg = Config.fromfile(CONFIGS / "hm_faster_rcnn_demo.py")
    cfg.model.codec = CODEC
    cfg.model.detector = faster_rcnn()
    cfg.model.pop("detector_checkpoint", None)
    cfg.work_dir = str(work_dir)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.update(data_root=str(data_root), num_train=8, num_val=4)
    cfg.train_dataloader.batch_size = 2
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator[0].ann_file = f"{data_root}/annotations/instances_val2017.json"
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    cfg.default_hooks.logger.interval = 1
    cfg.merge_from_dict(changes)
    return cfg
