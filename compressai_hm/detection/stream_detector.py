"""A detector that finds objects in streams, without decoding pictures."""

import copy

import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from ..bitstream.reader import StreamReader
from .configs import detector_config, read_latent
from .load import load_detector
from .view import DetectorView, prepare_latents


class StreamDetector:
    """Reads latents through a reader and a detector's later parts.

    Args:
        reader: A reader of y_hat, which replaces the detector's backbone.
        config: The detector: a whole MMDetection config, or the name of one.
        checkpoint: Weights of the rest of the detector.
        ratio: Factor of the size at which the detector reads pictures; smaller is
            faster. Defaults to 1.0.

    Raises:
        ValueError: If the reader does not read y_hat.
        RuntimeError: If the weights are of another detector.
    """

    def __init__(
        self,
        reader: StreamReader,
        config: dict | str,
        checkpoint: str,
        ratio: float = 1.0,
    ):
        if reader.reads != "y_hat":
            raise ValueError(
                f"reader {reader.name!r} reads {reader.reads} and gives pictures; to "
                "detect in streams, take one that reads y_hat"
            )
        init_default_scope("mmdet")
        self.reader, self.checkpoint, self.ratio = reader, checkpoint, ratio
        self.cfg, self.resize = detector_config(config, None)
        self.view = DetectorView(**self.resize)
        options = {k: reader.net.options[k] for k in ("widths", "depths", "scale")}
        channels = reader.net.options["in_channels"]
        cfg = read_latent(copy.deepcopy(self.cfg), channels, options)
        self.module = MODELS.build(cfg).eval()
        backbone = self.module.backbone
        if backbone.latent.options != reader.net.options:
            raise ValueError(
                f"reader {reader.name!r} was trained for another detector than {config}"
            )
        backbone.latent = None
        self.classes = load_detector(self.module, checkpoint)
        for part in (backbone, self.module.neck if self.module.with_neck else None):
            if part is not None:
                fuse_conv_bn(part)  # heads may share convolutions between levels
        backbone.latent = reader.net

    def load(self) -> None:
        """Does nothing: the weights are read already."""

    @torch.no_grad()
    def detect(self, y_hat: Tensor, size: tuple[int, int]) -> InstanceData:
        """Detects the objects of one picture.

        Args:
            y_hat: Its decoded latent, or before coding its latent, ``(1, M, h, w)``.
            size: (H, W) of the picture in pixels.

        Returns:
            Instances with ``bboxes``, ``(n, 4)`` in pixels of the picture, ``scores``
            and ``labels``, on the CPU.
        """
        resized, _ = self.view.sizes(*size, self.ratio)
        if not all(resized):  # too thin to be resized
            return InstanceData(
                bboxes=torch.zeros(0, 4),
                scores=torch.zeros(0),
                labels=torch.zeros(0, dtype=torch.long),
            )
        if next(self.module.parameters()).device != y_hat.device:
            self.module.to(y_hat.device)
        sample = DetDataSample(metainfo={"img_shape": size, "ori_shape": size})
        inputs, samples = prepare_latents(
            self.module, self.view, y_hat, [sample], self.ratio
        )
        (result,) = self.module.predict(inputs, samples)
        objects = result.pred_instances.cpu()
        objects.bboxes[:, 0::2].clamp_(0, size[1])
        objects.bboxes[:, 1::2].clamp_(0, size[0])
        return objects
