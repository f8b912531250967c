"""The detector's own training losses, as in the paper."""

import torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from .base import MachineLoss, Reading


@MODELS.register_module()
class DetectorLoss(MachineLoss):
    """The detector's training losses on the decoded view; they need labels."""

    annotations = "labels"
    compares = False

    def forward(self, reading: Reading) -> dict[str, Tensor | list[Tensor]]:
        """Returns the detector's terms under the detector's names.

        Args:
            reading: The batch, with annotations.
        """
        inputs, samples = reading.inputs, reading.annotations
        with reading.share_features():
            return reading.detector.loss(inputs, samples)


@MODELS.register_module()
class PseudoLabelLoss(MachineLoss):
    """The detector's losses, with its detections in the uncompressed picture as labels.

    It needs no annotations, and a detector that predicts boxes.

    Args:
        score_thr: The lowest score of detections that become labels. Defaults to 0.3.
        **kwargs: See :class:`MachineLoss`.
    """

    def __init__(self, score_thr: float = 0.3, **kwargs):
        super().__init__(**kwargs)
        self.score_thr = score_thr

    def forward(self, reading: Reading) -> dict[str, Tensor | list[Tensor]]:
        """Returns the detector's terms under the detector's names.

        Args:
            reading: The batch, with the uncompressed pictures.
        """
        samples = [sample.new() for sample in reading.annotations]
        inputs = reading.inputs.float()
        # YOLOX assigns labels only in float32.
        with torch.autocast(inputs.device.type, enabled=False):
            return self._loss(reading, inputs, samples)

    def _loss(
        self, reading: Reading, inputs: Tensor, samples: SampleList
    ) -> dict[str, Tensor | list[Tensor]]:
        with torch.no_grad():
            reference = reading.reference_inputs.float()
            results = reading.teacher.predict(reference, samples, rescale=False)
        for sample, result in zip(samples, results, strict=True):
            objects = result.pred_instances
            objects = objects[objects.scores >= self.score_thr]
            sample.gt_instances = InstanceData(
                bboxes=objects.bboxes, labels=objects.labels
            )
            sample.ignored_instances = sample.gt_instances[:0]
        return reading.detector.loss(inputs, samples)
