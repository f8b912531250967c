"""A detector that learns from labels and, at every place, from a frozen detector."""

from typing import Any

import torch
from mmdet.models.detectors import RTMDet
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor

from ..frozen_detector import FrozenDetector
from ..losses.feature_loss import relative_error
from ..losses.head_loss import compare_heads


@MODELS.register_module()
class DistilledRTMDet(RTMDet):
    """An RTMDet that is trained with RTMDet's losses and taught by another RTMDet.

    At every place its features after the neck and its scores follow the teacher's, and
    its box follows the teacher's in proportion to the teacher's score. The teacher
    reads the same batch and stays frozen. Checkpoints do not hold the teacher: they are
    those of a plain RTMDet.

    Args:
        teacher: An MMDetection model config, a whole config, or the name of one, with
            the same classes, strides, and channels after the neck.
        teacher_checkpoint: The teacher's weights, read in each run.
        teacher_weight: Factor of the teacher's terms, where that of labels is 1.
            Defaults to 1.0.
        **kwargs: RTMDet's arguments.

    Raises:
        ValueError: If the weight is negative, or the teacher is not an RTMDet of the
            same classes, channels and strides.
    """

    def __init__(
        self,
        teacher: dict | str,
        teacher_checkpoint: str,
        teacher_weight: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= teacher_weight < float("inf"):
            raise ValueError(
                f"model.teacher_weight must be 0 or more, got {teacher_weight!r}"
            )
        self.teacher_weight = teacher_weight
        # The teacher reads the student's batch, without a resize of its own.
        self.teacher = FrozenDetector(teacher, teacher_checkpoint, dict(scale=None))
        self.teacher.build()
        if not isinstance(self.teacher.module, RTMDet):
            raise ValueError(
                f"model.teacher must be an RTMDet, got {self.teacher.cfg.type}"
            )
        head, teacher = self.bbox_head, self.teacher.module.bbox_head
        for name, value, other in (
            ("classes", head.num_classes, teacher.num_classes),
            ("channels", head.in_channels, teacher.in_channels),
            ("strides", head.prior_generator.strides, teacher.prior_generator.strides),
        ):
            if value != other:
                raise ValueError(
                    f"model.teacher has the {name} {other} and the model {value}: "
                    "they must be the same"
                )

    def init_weights(self) -> None:
        """Initializes the weights as RTMDet does, and reads the teacher's weights.

        Raises:
            RuntimeError: If the teacher's weights are of another model.
        """
        super().init_weights()
        self.teacher.load()

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: SampleList
    ) -> dict[str, Tensor | list[Tensor]]:
        """Computes RTMDet's terms and those of the teacher.

        Args:
            batch_inputs: Normalized pictures, ``(N, 3, H, W)``.
            batch_data_samples: Their annotations.

        Returns:
            RTMDet's terms, ``loss_scores``, ``loss_boxes`` and ``loss_features``,
            weighted.
        """
        inputs = batch_inputs.contiguous(memory_format=torch.channels_last)
        features = self.extract_feat(inputs)
        outputs = tuple(
            [level.float() for level in part] for part in self.bbox_head(features)
        )
        labels, ignored, metas = unpack_gt_instances(batch_data_samples)
        losses = self.bbox_head.loss_by_feat(*outputs, labels, metas, ignored)
        with torch.no_grad():
            teacher = self.teacher.on(inputs.device)
            reference = teacher.extract_feat(self._normalize_for_teacher(inputs))
            targets = teacher.bbox_head(reference)
        scores, boxes = compare_heads(self.bbox_head, outputs, targets)
        weight = self.teacher_weight
        losses["loss_scores"] = weight * scores
        losses["loss_boxes"] = weight * 2 * boxes
        losses["loss_features"] = weight * 2 * relative_error(features, reference)
        return losses

    def _normalize_for_teacher(self, inputs: Tensor) -> Tensor:
        """Returns the batch as the teacher's preprocessor would have normalized it."""
        student, teacher = self.data_preprocessor, self.teacher.module.data_preprocessor
        pictures = inputs * student.std + student.mean
        if student._channel_conversion != teacher._channel_conversion:
            pictures = pictures.flip(1)
        return (pictures - teacher.mean.to(inputs)) / teacher.std.to(inputs)
