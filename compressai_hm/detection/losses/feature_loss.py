"""Losses between a detector's features of decoded and of uncompressed pictures."""

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
    """The error of the features after the neck, at all places; needs no labels."""

    def forward(self, reading: Reading) -> dict[str, Tensor]:
        """Returns ``loss_features``, the relative error of the features.

        Args:
            reading: The batch, with the uncompressed pictures.
        """
        return {"loss_features": relative_error(reading.features, reading.reference)}


@MODELS.register_module()
class ObjectFeatureLoss(MachineLoss):
    """The error of the features after the neck, inside the annotated boxes only."""

    annotations = "boxes"

    def forward(self, reading: Reading) -> dict[str, Tensor]:
        """Returns ``loss_objects``, the relative error of the features inside boxes.

        Args:
            reading: The batch, with the uncompressed pictures and annotated boxes.
        """
        features, reference = reading.features, reading.reference
        samples = reading.annotations
        inside = inside_boxes(samples, samples[0].batch_input_shape)
        return {"loss_objects": relative_error(features, reference, inside)}


def inside_boxes(samples: SampleList, size: tuple[int, int]) -> Tensor:
    """Returns masks that are 1 inside the annotated boxes and 0 elsewhere.

    Args:
        samples: Samples with ``gt_instances.bboxes``, which may be empty.
        size: (H, W) of the masks, in the boxes' pixels.

    Returns:
        ``(N, 1, H, W)``, float32, on the boxes' device.

    Raises:
        ValueError: If a picture has no annotations. An empty list of boxes is allowed.
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
    features: Sequence[Tensor],
    targets: Sequence[Tensor],
    inside: Tensor | None = None,
) -> Tensor:
    """Computes the squared error of features, relative to the targets' mean square.

    Args:
        features: Features, ``(N, C, h, w)`` for each level.
        targets: The features of the uncompressed picture, of the same shapes.
        inside: Weights at the detector's input, ``(N, 1, H, W)``. Defaults to 1.

    Returns:
        The mean over the levels, a scalar.
    """
    errors = []
    for a, b in zip(features, targets, strict=True):
        a, b = a.float(), b.float()
        error, power = (a - b).square(), b.square()
        if inside is not None:
            weight = F.interpolate(inside, b.shape[-2:], mode="area")
            error, power = error * weight, power * weight
        errors.append(error.mean() / power.mean().clamp(min=1e-12))
    return torch.stack(errors).mean()
