"""How far a detector's features are from those of the uncompressed picture."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from .base import MachineLoss, Reading


@MODELS.register_module()
class FeatureLoss(MachineLoss):
    """The error of the features after the neck, everywhere; needs no labels."""

    def forward(self, reading: Reading) -> dict[str, Tensor]:
        """``loss_features``."""
        return {"loss_features": relative_error(reading.features, reading.reference)}


@MODELS.register_module()
class ObjectFeatureLoss(MachineLoss):
    """The same, inside the annotated boxes: bits go to what is to be found."""

    annotations = "boxes"

    def forward(self, reading: Reading) -> dict[str, Tensor]:
        """``loss_objects``."""
        own, reference = reading.features, reading.reference
        inside = inside_boxes(reading.annotations, reading.inputs.shape[-2:])
        return {"loss_objects": relative_error(own, reference, inside)}


def inside_boxes(samples: SampleList, size: tuple[int, int]) -> Tensor:
    """1 in the annotated boxes, 0 elsewhere: ``(N, 1, H, W)``, on their device.

    Raises:
        ValueError: If a picture has no annotations; an empty list is one.
    """
    masks = []
    for sample in samples:
        if "bboxes" not in sample.get("gt_instances", {}):
            raise ValueError(
                "model.machine_losses: objects needs annotated pictures; these have no "
                "boxes: use features, or LoadAnnotations"
            )
        boxes = get_box_tensor(sample.gt_instances.bboxes).round()
        left, top, right, bottom = boxes.T[..., None]
        y, x = (torch.arange(side, device=boxes.device) for side in size)
        rows, columns = (top <= y) & (y < bottom), (left <= x) & (x < right)
        masks.append(rows.float().T @ columns.float() > 0)
    return torch.stack(masks)[:, None].float()


def relative_error(
    own: Sequence[Tensor], targets: Sequence[Tensor], inside: Tensor | None = None
) -> Tensor:
    """Mean over the levels: the squared error over the reference's mean square.

    Args:
        own: Features, ``(N, C, h, w)`` for each level.
        targets: Those of the uncompressed picture.
        inside: ``(N, 1, H, W)`` weights at the detector's input. Defaults to 1.
    """
    errors = []
    for a, b in zip(own, targets, strict=True):
        a, b = a.float(), b.float()
        error, power = (a - b).square(), b.square()
        if inside is not None:
            weight = F.interpolate(inside, b.shape[-2:], mode="area")
            error, power = error * weight, power * weight
        errors.append(error.mean() / power.mean().clamp(min=1e-12))
    return torch.stack(errors).mean()
