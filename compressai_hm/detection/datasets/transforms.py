"""Loading and augmentation that codecs need and MMDetection does not have."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS
from mmengine.logging import print_log

from .shared_pictures import SharedPictures


@TRANSFORMS.register_module()
class LoadCachedImage(LoadImageFromFile):
    """LoadImageFromFile that can keep decoded pictures in memory.

    Args:
        cache_bytes: Memory for the pictures, which the workers of a data loader share.
            It fills as pictures are read; pictures that do not fit are decoded each
            time. Defaults to 0, which keeps none.
        **kwargs: Arguments of LoadImageFromFile.

    Raises:
        ValueError: If there is less free memory.
    """

    def __init__(self, cache_bytes: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.cache = SharedPictures(cache_bytes) if cache_bytes else None
        if self.cache:
            gigabytes = cache_bytes / 1e9
            print_log(
                f"decoded pictures take up to {gigabytes:.2f} GB of memory", "current"
            )

    def transform(self, results: dict) -> dict | None:
        if self.cache is None:
            return super().transform(results)
        path = str(results["img_path"])
        picture = self.cache.get(path)
        if picture is None:
            results = super().transform(results)
            if results is not None and not self.to_float32:
                self.cache.put(path, results["img"])
            return results
        shape = picture.shape[:2]
        return {**results, "img": picture, "img_shape": shape, "ori_shape": shape}


@TRANSFORMS.register_module()
class RandomDownscale(BaseTransform):
    """Shrinks a training picture by a random factor; the result counts as the original.

    Photographs that were JPEG files lose their block artifacts. bpp counts the pixels
    of the shrunk picture.

    Args:
        low: Smallest factor; the largest is 1. Defaults to 0.5.
        least: Least length of a side in pixels, so that a crop that follows has its
            size. Defaults to 1.
        keep: Share of the pictures that keep their size. Defaults to 0.

    Raises:
        ValueError: If ``low`` is not above 0 and at most 1.
    """

    def __init__(self, low: float = 0.5, least: int = 1, keep: float = 0.0):
        if not 0 < low <= 1:
            raise ValueError(f"low must be over 0 and at most 1, got {low}")
        self.low, self.least, self.keep = low, least, keep

    def transform(self, results: dict) -> dict:
        if self.keep and np.random.rand() < self.keep:
            return results
        low = max(self.low, self.least / min(results["img"].shape[:2]))
        factor = np.random.uniform(min(low, 1), 1)
        resize = Resize(scale_factor=factor, keep_ratio=True, interpolation="area")
        results = resize(results)
        results["scale_factor"] = (1.0, 1.0)
        results["ori_shape"] = results["img_shape"]
        return results
