"""Bits and distortion of the decoded pictures, beside CocoMetric."""

import math
from collections.abc import Sequence

from mmdet.evaluation import DumpDetResults
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from ..codecs.distortion import ms_ssim, psnr
from ..codecs.entropy.devices import in_float64

_MOST = 10 * math.log10(255**2 / 1e-10)
"""dB: of equal pictures, whose mean must stay a number."""


@METRICS.register_module()
class RateDistortionMetric(BaseMetric):
    """bpp, and PSNR and MS-SSIM of x_hat and x_bar, on pictures rounded to 8 bits.

    bpp counts bits over original pixels; every figure is the mean over the pictures.
    MS-SSIM leaves out pictures with a side under 161 and is absent if all are.

    Args:
        collect_device: As in MMEngine's metrics. Defaults to "cpu".
        prefix: As in MMEngine's metrics. Defaults to None.
    """

    default_prefix = "codec"

    def __init__(self, collect_device: str = "cpu", prefix: str | None = None):
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Measures a batch.

        Args:
            data_batch: ``inputs``: the pictures before coding, ``(3, H, W)`` BGR
                uint8.
            data_samples: HumanMachineDetector's, as dicts.
        """
        for picture, sample in zip(data_batch["inputs"], data_samples, strict=True):
            x = in_float64(picture.flip(0).to(sample["x_hat"].device))[None]
            result = {"bpp": sample["bits"] / (x.shape[-2] * x.shape[-1])}
            for name in ("x_hat", "x_bar"):
                if name not in sample:
                    continue
                view = in_float64(sample[name])[None]
                result[f"psnr_{name}"] = min(psnr(x, view, 255), _MOST)
                alike = ms_ssim(x, view, 255)
                if alike is not None:
                    result[f"ms_ssim_{name}"] = alike
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Means over the pictures that have the figure."""
        keys = sorted({key for result in results for key in result})
        return {
            key: sum(values) / len(values)
            for key in keys
            for values in [[r[key] for r in results if key in r]]
        }


@METRICS.register_module()
class DumpPredictions(DumpDetResults):
    """MMDetection's ``DumpDetResults`` without what is the codec's."""

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        own = ("x_hat", "x_bar", "steps")
        super().process(
            data_batch,
            [{k: v for k, v in s.items() if k not in own} for s in data_samples],
        )
