"""The detector's own losses, as in the paper."""

import torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from .base import MachineLoss, Reading


@MODELS.register_module()
class DetectorLoss(MachineLoss):
    """What the detector itself is trained with, on the decoded view; needs labels."""

    annotations = "labels"
    compares = False

    def forward(self, reading: Reading) -> dict[str, Tensor | list[Tensor]]:
        """The detector's terms, by its names."""
        inputs, samples = reading.inputs, reading.annotations
        return reading.detector.loss(inputs, samples)


@MODELS.register_module()
class PseudoLabelLoss(MachineLoss):
    """The same, with what the detector finds in the uncompressed picture as labels.

    Needs no annotations. Of detectors of boxes.

    Args:
        score_thr: Objects from this score up. Defaults to 0.3.
        **kwargs: See :class:`MachineLoss`.
    """

    def __init__(self, score_thr: float = 0.3, **kwargs):
        super().__init__(**kwargs)
        self.score_thr = score_thr

    def forward(self, reading: Reading) -> dict[str, Tensor | list[Tensor]]:
        """The detector's terms, by its names."""
        samples = [sample.new() for sample in reading.annotations]
        inputs = reading.inputs.float()
        # YOLOX assigns labels in float32 only.
        with torch.autocast(inputs.device.type, enabled=False):
            return self._loss(reading, inputs, samples)

    def _loss(
        self, reading: Reading, inputs: Tensor, samples: SampleList
    ) -> dict[str, Tensor | list[Tensor]]:
        with torch.no_grad():
            reference = reading.reference_inputs.float()
            found = reading.detector.predict(reference, samples, rescale=False)
        for sample, own in zip(samples, found, strict=True):
            own = own.pred_instances
            own = own[own.scores >= self.score_thr]
            sample.gt_instances = InstanceData(bboxes=own.bboxes, labels=own.labels)
            sample.ignored_instances = sample.gt_instances[:0]
        return reading.detector.loss(inputs, samples)
