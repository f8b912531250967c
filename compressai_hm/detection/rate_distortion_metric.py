"""Bits and distortion of decoded pictures, a metric to use beside CocoMetric."""

import math
from collections.abc import Sequence

from mmdet.evaluation import DumpDetResults
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from ..distortion import ms_ssim, psnr
from ..entropy.devices import in_float64

_MOST = 10 * math.log10(255**2 / 1e-10)
"""PSNR of equal pictures in dB; a finite value, so that means stay finite."""


@METRICS.register_module()
class RateDistortionMetric(BaseMetric):
    """bpp, and PSNR and MS-SSIM of x_hat and x_bar, on pictures rounded to 8 bits.

    bpp counts bits over original pixels; every figure is the mean over the pictures.
    MS-SSIM leaves out pictures with a side under 161 and is absent if all are.

    It takes the arguments of MMEngine's BaseMetric.
    """

    default_prefix = "codec"

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Measures a batch.

        Args:
            data_batch: ``inputs``, the pictures before coding, each ``(3, H, W)`` BGR
                uint8.
            data_samples: The samples that HumanMachineDetector predicted, as dicts.
        """
        for picture, sample in zip(data_batch["inputs"], data_samples, strict=True):
            x = in_float64(picture.flip(0).to(sample["x_hat"].device))[None]
            result = {"bpp": sample["bits"] / (x.shape[-2] * x.shape[-1])}
            for name in ("x_hat", "x_bar"):
                if name not in sample:
                    continue
                view = in_float64(sample[name])[None]
                result[f"psnr_{name}"] = min(psnr(x, view, 255), _MOST)
                similarity = ms_ssim(x, view, 255)
                if similarity is not None:
                    result[f"ms_ssim_{name}"] = similarity
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Computes each figure's mean over the pictures that have it.

        Args:
            results: The figures of each picture.

        Returns:
            ``bpp``, and for each view PSNR in dB and MS-SSIM.
        """
        keys = sorted({key for result in results for key in result})
        return {
            key: sum(values) / len(values)
            for key in keys
            for values in [[r[key] for r in results if key in r]]
        }


@METRICS.register_module()
class DumpPredictions(DumpDetResults):
    """MMDetection's ``DumpDetResults``, which leaves out the fields of the codec."""

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        fields = ("x_hat", "x_bar", "steps")
        super().process(
            data_batch,
            [{k: v for k, v in s.items() if k not in fields} for s in data_samples],
        )
