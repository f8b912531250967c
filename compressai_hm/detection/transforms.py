"""Data augmentation that codecs need and MMDetection does not have."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomDownscale(BaseTransform):
    """Shrinks a training picture by a random factor; the result counts as the original.

    Photographs that were JPEG files lose their block artefacts, and bpp counts the
    pixels that are left.

    Args:
        low: Smallest factor; the largest is 1. Defaults to 0.5.

    Raises:
        ValueError: If it is not over 0 and at most 1.
    """

    def __init__(self, low: float = 0.5):
        if not 0 < low <= 1:
            raise ValueError(f"low must be over 0 and at most 1, got {low}")
        self.low = low

    def transform(self, results: dict) -> dict:
        factor = np.random.uniform(self.low, 1)
        results = Resize(scale_factor=factor, keep_ratio=True)(results)
        results["scale_factor"] = (1.0, 1.0)
        results["ori_shape"] = results["img_shape"]
        return results
