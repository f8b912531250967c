"""A detector that learns of a frozen one at every place, and of labels."""

from typing import Any

import torch
from mmdet.models.detectors import RTMDet
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor
from torch.nn import functional as F

from .frozen_detector import FrozenDetector
from .losses.feature_loss import relative_error


@MODELS.register_module()
class DistilledRTMDet(RTMDet):
    """An RTMDet that is trained with RTMDet's losses and taught by another RTMDet.

    At every place its features after the neck and its score follow the teacher's, and
    its box where the teacher finds something. The teacher reads the same batch, stays
    frozen, and is in no checkpoint: what is trained is a plain RTMDet's weights.

    Args:
        teacher: An MMDetection model config, a whole config, or the name of one; of the
            same classes, channels after the neck, and strides.
        teacher_checkpoint: The teacher's weights, read in each run.
        teacher_weight: Factor of what it says, beside the labels' 1. Defaults to 1.0.
        **kwargs: RTMDet's.

    Raises:
        ValueError: If the weight is negative, or the teacher is no RTMDet of the same
            classes, channels and strides.
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
        # It sees what the student sees: no resize of its own.
        self.teacher = FrozenDetector(teacher, teacher_checkpoint, dict(scale=None))
        self.teacher.build()
        if not isinstance(self.teacher.module, RTMDet):
            raise ValueError(
                f"model.teacher must be an RTMDet, got {self.teacher.cfg.type}"
            )
        own, theirs = self.bbox_head, self.teacher.module.bbox_head
        for name, mine, other in (
            ("classes", own.num_classes, theirs.num_classes),
            ("channels", own.in_channels, theirs.in_channels),
            ("strides", own.prior_generator.strides, theirs.prior_generator.strides),
        ):
            if mine != other:
                raise ValueError(
                    f"model.teacher has the {name} {other} and the model {mine}: "
                    "they must be the same"
                )

    def init_weights(self) -> None:
        """As RTMDet's, and reads the teacher's weights.

        Raises:
            RuntimeError: If they are of another model.
        """
        super().init_weights()
        self.teacher.load()

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: SampleList
    ) -> dict[str, Tensor | list[Tensor]]:
        """RTMDet's terms; ``loss_scores``, ``loss_boxes`` and ``loss_features``.

        Args:
            batch_inputs: Normalised pictures, ``(N, 3, H, W)``.
            batch_data_samples: Their annotations.
        """
        inputs = batch_inputs.contiguous(memory_format=torch.channels_last)
        features = self.extract_feat(inputs)
        own = tuple(
            [level.float() for level in part] for part in self.bbox_head(features)
        )
        labels, ignored, metas = unpack_gt_instances(batch_data_samples)
        losses = self.bbox_head.loss_by_feat(*own, labels, metas, ignored)
        with torch.no_grad():
            teacher = self.teacher.on(inputs.device)
            reference = teacher.extract_feat(self._for_teacher(inputs))
            theirs = teacher.bbox_head(reference)
        scores, boxes = _apart(own, theirs)
        weight = self.teacher_weight
        losses["loss_scores"] = weight * scores
        losses["loss_boxes"] = weight * 2 * boxes
        losses["loss_features"] = weight * 2 * relative_error(features, reference)
        return losses

    def _for_teacher(self, inputs: Tensor) -> Tensor:
        """The batch as the teacher's preprocessor would have made it."""
        own, theirs = self.data_preprocessor, self.teacher.module.data_preprocessor
        pictures = inputs * own.std + own.mean
        if own._channel_conversion != theirs._channel_conversion:
            pictures = pictures.flip(1)
        return (pictures - theirs.mean.to(inputs)) / theirs.std.to(inputs)


def _apart(
    own: tuple[list[Tensor], list[Tensor]], theirs: tuple[list[Tensor], list[Tensor]]
) -> tuple[Tensor, Tensor]:
    """How far scores and boxes of two heads are from each other; 0 if they agree.

    Args:
        own: Logits ``(N, classes, h, w)`` and distances of a box's sides
            ``(N, 4, h, w)``, of each level.
        theirs: The same of the teacher.
    """
    logits, sides = (_places(levels) for levels in own)
    scores, targets = (_places(levels) for levels in theirs)
    scores = scores.sigmoid()
    found = scores.amax(1)
    count = found.sum().clamp(min=1)
    difference = (logits.detach().sigmoid() - scores).abs()
    error = F.binary_cross_entropy_with_logits(logits, scores, reduction="none")
    # Of the same place, which can be anywhere.
    outward = sides.new_tensor([-1, -1, 1, 1])
    overlap = bbox_overlaps(
        sides * outward, targets.clamp(min=0) * outward, mode="giou", is_aligned=True
    )
    return (difference * error).sum() / count, (found * (1 - overlap)).sum() / count


def _places(levels: list[Tensor]) -> Tensor:
    """(N, C, h, w) of each level to (places, C), in float32."""
    flat = [level.permute(0, 2, 3, 1).flatten(0, 2) for level in levels]
    return torch.cat(flat).float()
