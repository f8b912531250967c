"""A loss between a head's outputs for decoded and for uncompressed pictures."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models.task_modules.coders import DistancePointBBoxCoder
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor, nn

from .base import MachineLoss, Reading

Outputs = Sequence[Sequence[Tensor]]
"""A head's class scores, boxes and further maps of each level, ``(N, C, h, w)``."""


@MODELS.register_module()
class HeadLoss(MachineLoss):
    """The distance of scores and boxes at every place; needs no labels.

    Scores follow those on the uncompressed picture most where the two differ most
    (quality focal loss). A box follows the other in proportion to its score. It needs a
    detector with one stage.
    """

    def forward(self, reading: Reading) -> dict[str, Tensor]:
        """Returns ``loss_scores`` and ``loss_boxes``.

        Args:
            reading: The batch, with the uncompressed pictures.

        Raises:
            TypeError: If the detector has no head with scores and boxes at all places.
        """
        head = getattr(reading.detector, "bbox_head", None)
        if not hasattr(head, "cls_out_channels"):
            raise TypeError(
                "model.machine_losses: HeadLoss needs a detector with one stage, got "
                f"{type(reading.detector).__name__}: take PseudoLabelLoss"
            )
        outputs = head(reading.features)
        with torch.no_grad():
            targets = reading.teacher.bbox_head(reading.reference)
        scores, boxes = compare_heads(head, outputs, targets)
        return {"loss_scores": scores, "loss_boxes": boxes}


def compare_heads(
    head: nn.Module, outputs: Outputs, targets: Outputs
) -> tuple[Tensor, Tensor]:
    """Computes the distances of scores and boxes of two heads; 0 if they agree.

    Args:
        head: The head that gave the outputs.
        outputs: Logits, boxes and perhaps logits of objectness.
        targets: The same of the teacher.

    Returns:
        The distance of scores and that of boxes, over the sum of the teacher's scores.
    """
    logits, sides, *more = (_flatten_levels(levels) for levels in outputs)
    target_logits, target_sides, *target_more = map(_flatten_levels, targets)
    objectness = target_logits.sigmoid().amax(1)
    for other in target_more:
        objectness = objectness * other.sigmoid().amax(1)
    count = objectness.sum().clamp(min=1)
    scores = sum(
        _quality_focal_loss(a, b)
        for a, b in zip((logits, *more), (target_logits, *target_more), strict=True)
    )
    if isinstance(getattr(head, "bbox_coder", None), DistancePointBBoxCoder):
        # Both boxes are relative to the same place, so it does not matter where it is.
        outward = sides.new_tensor([-1, -1, 1, 1])
        boxes, target_boxes = sides * outward, target_sides.clamp(min=0) * outward
        distance = 1 - bbox_overlaps(boxes, target_boxes, mode="giou", is_aligned=True)
    else:
        distance = F.smooth_l1_loss(sides, target_sides, reduction="none").mean(1)
    return scores / count, (objectness * distance).sum() / count


def _quality_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    targets = targets.sigmoid()
    difference = (logits.detach().sigmoid() - targets).abs()
    error = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (difference * error).sum()


def _flatten_levels(levels: Sequence[Tensor]) -> Tensor:
    """Flattens (N, C, h, w) of each level to (places, C), in float32."""
    flat = [level.permute(0, 2, 3, 1).flatten(0, 2) for level in levels]
    return torch.cat(flat).float()
