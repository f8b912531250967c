"""Turning decoded pictures into a detector's input.

The order is: decode, resize, letterbox, then the detector's own normalization and batch
padding. In training, torch computes resize and letterbox, so that gradients reach the
codec. At evaluation, MMDetection's own transforms run on the picture rounded to 8 bits.
"""

from collections.abc import Sequence
from typing import Any

import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.detectors import BaseDetector
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample, SampleList
from mmengine.dataset import Compose
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from ..geometry import padded_size

_KEYS = {"scale", "keep_ratio", "pad_to_square", "pad_val", "size_divisor"}


def find_resize(pipeline: list[dict]) -> dict:
    """Returns the ``resize`` that a detector's own test pipeline does.

    Args:
        pipeline: MMDetection's ``test_pipeline``.

    Returns:
        Arguments for :class:`DetectorView`.

    Raises:
        ValueError: If the pipeline holds another transform than Resize and Pad, or one
            of these with options that DetectorView does not have.
    """
    resize: dict = {}
    for step in pipeline:
        name = step["type"].removeprefix("mmdet.")
        if name == "Resize":
            unknown = set(step) - {"type", "scale", "keep_ratio"}
            if unknown or "scale" not in step:
                raise ValueError(
                    f"the detector's test pipeline resizes by {dict(step)}; only scale "
                    "and keep_ratio can follow the decoder: give model.resize yourself"
                )
            resize["scale"] = tuple(step["scale"])
            resize["keep_ratio"] = step.get("keep_ratio", False)
        elif name == "Pad":
            size, scale = step.get("size"), resize.get("scale")
            square = size and scale and tuple(size) == scale == scale[::-1]
            if size and not (square and resize["keep_ratio"]):
                raise ValueError(
                    f"Pad(size={size}) after Resize(scale={scale}) is no letterbox; "
                    "give model.resize yourself"
                )
            resize["pad_to_square"] = bool(square) or step.get("pad_to_square", False)
            resize["size_divisor"] = step.get("size_divisor")
            pad_val = step.get("pad_val", 0)
            resize["pad_val"] = (
                pad_val.get("img", 0) if isinstance(pad_val, dict) else pad_val
            )
        elif not (name.startswith("Load") or name.startswith("Pack")):
            raise ValueError(
                f"the detector's test pipeline holds {name}, which cannot follow the "
                "decoder; give model.resize yourself"
            )
    return resize


class DetectorView:
    """Resizes and letterboxes decoded pictures together with their annotations.

    Args:
        scale: (width, height) as in MMDetection's ``Resize``; None keeps the size.
            Defaults to None.
        keep_ratio: As in ``Resize``. Defaults to True.
        **pad: ``pad_to_square`` and ``size_divisor`` as in ``Pad``, and ``pad_val``,
            the value of the padding, 0 to 255, one or per channel (BGR).

    Raises:
        ValueError: For a key that is none of these.
    """

    def __init__(
        self,
        scale: Sequence[int] | None = None,
        keep_ratio: bool = True,
        **pad: Any,
    ):
        unknown = set(pad) - _KEYS
        if unknown:
            raise ValueError(
                f"model.resize has no {sorted(unknown)}; it takes {sorted(_KEYS)}"
            )
        self.options = dict(scale=scale, keep_ratio=keep_ratio, **pad)
        self.scale = tuple(scale) if scale else None
        self.keep_ratio = keep_ratio
        self.pad_to_square = pad.get("pad_to_square", False)
        self.pad_val = pad.get("pad_val", 0)
        self.size_divisor = pad.get("size_divisor")

        steps: list[dict] = []
        if self.scale:
            steps.append(dict(type="Resize", scale=self.scale, keep_ratio=keep_ratio))
        if self.pad_to_square or self.size_divisor:
            pad_val = self.pad_val
            if not isinstance(pad_val, (int, float)):
                pad_val = tuple(pad_val)
            steps.append(
                dict(
                    type="Pad",
                    pad_to_square=self.pad_to_square,
                    size_divisor=self.size_divisor,
                    pad_val=dict(img=pad_val),
                )
            )
        keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
        steps.append(dict(type="PackDetInputs", meta_keys=keys))
        self.pipeline = Compose([TRANSFORMS.build(step) for step in steps])

    def draw_ratio(self, low: float, high: float) -> float:
        """Draws a factor of the detector's size in training.

        Args:
            low: The smallest factor.
            high: The largest factor.

        Returns:
            The factor. If pictures are padded to a square, its side is then a multiple
            of 32, as most detectors require.
        """
        ratio = low * (high / low) ** float(torch.rand(()))
        if not (self.scale and self.pad_to_square):
            return ratio
        side = max(self.scale)
        return max(32, 32 * round(side * ratio / 32)) / side

    def sizes(
        self, height: int, width: int, ratio: float = 1.0
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Computes the sizes of a picture after the resize and after the letterbox.

        Args:
            height: Of the decoded picture, in pixels.
            width: Of the decoded picture, in pixels.
            ratio: Factor of the detector's size. Defaults to 1.0.

        Returns:
            (H, W) after the resize, and (H, W) after the letterbox.
        """
        scale = self.scale or (width, height)
        scale = tuple(max(1, round(side * ratio)) for side in scale)
        if self.scale and self.keep_ratio:
            scale = mmcv.rescale_size((width, height), scale)
        new_w, new_h = scale
        pad_h, pad_w = new_h, new_w
        if self.pad_to_square:
            pad_h = pad_w = max(new_h, new_w)
        if self.size_divisor:
            pad_h, pad_w = padded_size((pad_h, pad_w), self.size_divisor)
        return (new_h, new_w), (pad_h, pad_w)

    def prepare_training(
        self, picture: Tensor, sample: DetDataSample, ratio: float = 1.0
    ) -> tuple[Tensor, DetDataSample]:
        """Resizes and letterboxes a picture differentiably.

        The resize is bilinear, with align_corners=False and without antialiasing.

        Args:
            picture: Decoded RGB, ``(3, H, W)``, about [0, 1].
            sample: The picture's annotations, at (H, W). It is not changed.
            ratio: Factor of the detector's size. Defaults to 1.0.

        Returns:
            The picture, BGR, 0 to 255, ``(3, H', W')``, and annotations for it.
        """
        height, width = picture.shape[-2:]
        (new_h, new_w), (pad_h, pad_w) = self.sizes(height, width, ratio)
        view = picture.flip(0)[None] * 255
        if (new_h, new_w) != (height, width):
            view = F.interpolate(view, (new_h, new_w), mode="bilinear")
        view = view[0]
        if (pad_h, pad_w) != (new_h, new_w):
            pad = (0, pad_w - new_w, 0, pad_h - new_h)
            values = np.broadcast_to(self.pad_val, 3).tolist()
            pairs = zip(view, values, strict=True)
            view = torch.stack([F.pad(plane, pad, value=v) for plane, v in pairs])

        resized, padded = (new_h, new_w), (pad_h, pad_w)
        sample = _fit_sample(sample, (height, width), resized, padded)
        return view, sample

    def prepare_testing(self, picture: Tensor, sample: DetDataSample) -> dict:
        """Runs MMDetection's own transforms on a picture rounded to 8 bits.

        Args:
            picture: Decoded RGB, ``(3, H, W)``, in [0, 1].
            sample: Its metainfo.

        Returns:
            ``inputs`` and ``data_samples``, as after MMDetection's test pipeline.
        """
        bgr = (picture.flip(0) * 255).round().byte().permute(1, 2, 0)
        size = tuple(bgr.shape[:2])
        results = {
            "img": np.ascontiguousarray(bgr.cpu().numpy()),
            "img_shape": size,
            "ori_shape": size,
            "scale_factor": (1.0, 1.0),
            "img_id": sample.metainfo.get("img_id", 0),
            "img_path": sample.metainfo.get("img_path"),
        }
        return self.pipeline(results)

    @torch.no_grad()
    def detect(
        self, detector: BaseDetector, picture: Tensor, number: int = 0
    ) -> InstanceData:
        """Detects the objects in a picture, through the test transforms.

        Args:
            detector: A detector in eval mode.
            picture: RGB, ``(3, H, W)``, in [0, 1].
            number: The picture's id. Defaults to 0.

        Returns:
            ``pred_instances``, at the picture's size, on the CPU.

        Raises:
            ValueError: If the detector gives no boxes.
        """
        (height, width), _ = self.sizes(*picture.shape[-2:])
        if not (height and width):  # too thin to be resized
            boxes, scores = torch.zeros(0, 4), torch.zeros(0)
            return InstanceData(bboxes=boxes, scores=scores, labels=scores.long())
        sample = DetDataSample(metainfo={"img_id": number})
        data = self.prepare_testing(picture, sample)
        data = detector.data_preprocessor({k: [v] for k, v in data.items()}, False)
        (result,) = detector.predict(data["inputs"], data["data_samples"])
        if "pred_instances" not in result:
            raise ValueError(f"a {type(detector).__name__} finds no boxes")
        return result.pred_instances.cpu()

    def batch(
        self,
        detector: BaseDetector,
        pictures: Tensor,
        samples: SampleList,
        training: bool,
        ratio: float = 1.0,
    ) -> tuple[Tensor, SampleList]:
        """Prepares a batch for the detector's ``loss`` and ``extract_feat``.

        Args:
            detector: The detector that will read the batch.
            pictures: Decoded RGB, ``(N, 3, H, W)``, each valid within its
                ``img_shape``.
            samples: The pictures' annotations. They are not changed.
            training: Whether the detector's random augmentations act.
            ratio: Factor of the detector's size. Defaults to 1.0.

        Returns:
            Inputs, with gradients, and annotations for them.
        """
        pairs = [
            self.prepare_training(
                picture[:, : sample.img_shape[0], : sample.img_shape[1]], sample, ratio
            )
            for picture, sample in zip(pictures, samples, strict=True)
        ]
        inputs, samples = (list(p) for p in zip(*pairs, strict=True))
        data = detector.data_preprocessor(
            {"inputs": inputs, "data_samples": samples}, training=training
        )
        return data["inputs"], data["data_samples"]


def prepare_latents(
    detector: BaseDetector,
    view: DetectorView,
    y_hat: Tensor,
    samples: SampleList,
    ratio: float = 1.0,
) -> tuple[Tensor, SampleList]:
    """Brings latents to the grid of the size at which a detector reads pictures.

    Args:
        detector: A detector whose backbone is a :class:`LatentBackbone`.
        view: The resize and letterbox of its pictures.
        y_hat: Latents, ``(N, M, h, w)``, each valid for its picture's ``img_shape``.
        samples: Samples with ``img_shape`` and, in training, annotations. They are not
            changed.
        ratio: Factor of the detector's size. Defaults to 1.0.

    Returns:
        The backbone's input, with gradients, and samples with the sizes and annotations
        that the detector would have for pictures.
    """
    sizes = [tuple(sample.img_shape[:2]) for sample in samples]
    fitted = [view.sizes(*size, ratio) for size in sizes]
    largest = tuple(max(padded[i] for _, padded in fitted) for i in range(2))
    divisor = getattr(detector.data_preprocessor, "pad_size_divisor", 1)
    batch = padded_size(largest, divisor)
    inputs, results = [], []
    for y, size, (resized, padded), sample in zip(
        y_hat, sizes, fitted, samples, strict=True
    ):
        factors = (resized[1] / size[1], resized[0] / size[0])
        inputs.append(detector.backbone.resample(y[None], size, factors, batch))
        sample = _fit_sample(sample, size, resized, batch)
        sample.set_metainfo(
            {"img_shape": padded, "pad_shape": padded, "batch_input_shape": batch}
        )
        results.append(sample)
    return torch.cat(inputs), results


def _fit_sample(
    sample: DetDataSample,
    size: tuple[int, int],
    resized: tuple[int, int],
    padded: tuple[int, int],
) -> DetDataSample:
    """Returns a sample whose annotations follow a picture's resize and letterbox."""
    sample = sample.new()
    scale = (resized[1] / size[1], resized[0] / size[0])
    for field in ("gt_instances", "ignored_instances", "proposals"):
        if field in sample:
            instances = _scale_instances(sample.get(field), scale, resized, padded)
            setattr(sample, field, instances)
    if "gt_sem_seg" in sample:
        labels = sample.gt_sem_seg.sem_seg
        labels = F.interpolate(labels[None].float(), resized)[0].to(labels)
        pad = (0, padded[1] - resized[1], 0, padded[0] - resized[0])
        sample.gt_sem_seg = PixelData(sem_seg=F.pad(labels, pad, value=255))
    sample.set_metainfo(
        {"img_shape": padded, "scale_factor": scale, "pad_shape": padded}
    )
    return sample


def _scale_instances(
    instances: InstanceData,
    scale: tuple[float, float],
    size: tuple[int, int],
    padded: tuple[int, int],
) -> InstanceData:
    """Scales boxes and masks to a resized picture, and pads the masks."""
    instances = instances.new()
    if "bboxes" in instances:
        x, y = (instances.bboxes[:, i::2] * scale[i] for i in range(2))
        instances.bboxes = torch.stack((x, y), -1).flatten(1)
    if "masks" in instances:
        instances.masks = instances.masks.resize(size).pad(padded)
    return instances
