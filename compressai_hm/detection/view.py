"""From decoded pictures to what the wrapped detector reads.

decode -> resize -> letterbox -> the detector's own normalisation and batch padding.
Training does the first two in torch, so that gradients reach the codec; evaluation runs
MMDetection's own transforms on the picture rounded to 8 bits.
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

from ..codecs.human_machine import Y_STRIDE, Z_STRIDE

_KEYS = {"scale", "keep_ratio", "pad_to_square", "pad_val", "size_divisor"}


def resize_of(pipeline: list[dict]) -> dict:
    """The ``resize`` that a detector's own test pipeline does.

    Args:
        pipeline: MMDetection's ``test_pipeline``.

    Returns:
        Arguments for :class:`DetectorView`.

    Raises:
        ValueError: If it holds a transform that is neither Resize nor Pad.
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
    """Resize and letterbox of decoded pictures, with their annotations.

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

    def sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(H, W) after the resize and after the letterbox."""
        if not self.scale:
            new_h, new_w = height, width
        elif self.keep_ratio:
            new_w, new_h = mmcv.rescale_size((width, height), self.scale)
        else:
            new_w, new_h = self.scale
        pad_h, pad_w = new_h, new_w
        if self.pad_to_square:
            pad_h = pad_w = max(new_h, new_w)
        if self.size_divisor:
            pad_h = -(-pad_h // self.size_divisor) * self.size_divisor
            pad_w = -(-pad_w // self.size_divisor) * self.size_divisor
        return (new_h, new_w), (pad_h, pad_w)

    def for_training(
        self, picture: Tensor, sample: DetDataSample
    ) -> tuple[Tensor, DetDataSample]:
        """Differentiable: bilinear, align_corners=False, no antialias.

        Args:
            picture: Decoded RGB, ``(3, H, W)``, about [0, 1].
            sample: Its annotations, at (H, W). Not changed.

        Returns:
            BGR, 0 to 255, ``(3, H', W')``, and annotations for it.
        """
        height, width = picture.shape[-2:]
        (new_h, new_w), (pad_h, pad_w) = self.sizes(height, width)
        view = picture.flip(0)[None] * 255
        if (new_h, new_w) != (height, width):
            view = F.interpolate(view, (new_h, new_w), mode="bilinear")
        view = view[0]
        if (pad_h, pad_w) != (new_h, new_w):
            pad = (0, pad_w - new_w, 0, pad_h - new_h)
            values = np.broadcast_to(self.pad_val, 3).tolist()
            both = zip(view, values, strict=True)
            view = torch.stack([F.pad(own, pad, value=value) for own, value in both])

        sample = sample.new()
        scale = (new_w / width, new_h / height)
        for field in ("gt_instances", "ignored_instances", "proposals"):
            if field in sample:
                instances = _scaled(
                    sample.get(field), scale, (new_h, new_w), (pad_h, pad_w)
                )
                setattr(sample, field, instances)
        if "gt_sem_seg" in sample:
            labels = sample.gt_sem_seg.sem_seg
            resized = F.interpolate(labels[None].float(), (new_h, new_w))[0]
            sample.gt_sem_seg = _padded(resized.to(labels), (pad_h, pad_w))
        sample.set_metainfo(
            {
                "img_shape": (pad_h, pad_w),
                "scale_factor": scale,
                "pad_shape": (pad_h, pad_w),
            }
        )
        return view, sample

    def for_testing(self, picture: Tensor, sample: DetDataSample) -> dict:
        """MMDetection's own transforms on the picture rounded to 8 bits.

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
        """What a detector finds in a picture, by its own test pipeline.

        Args:
            detector: In eval mode.
            picture: RGB, ``(3, H, W)``, in [0, 1].
            number: The picture's id.

        Returns:
            ``pred_instances``, at the picture's size, on the CPU.

        Raises:
            ValueError: If it gives no boxes.
        """
        (height, width), _ = self.sizes(*picture.shape[-2:])
        if not (height and width):  # too thin to be resized
            none = torch.zeros(0)
            return InstanceData(bboxes=none.view(0, 4), scores=none, labels=none.long())
        sample = DetDataSample(metainfo={"img_id": number})
        data = self.for_testing(picture, sample)
        data = detector.data_preprocessor({k: [v] for k, v in data.items()}, False)
        (found,) = detector.predict(data["inputs"], data["data_samples"])
        if "pred_instances" not in found:
            raise ValueError(f"a {type(detector).__name__} finds no boxes")
        return found.pred_instances.cpu()

    def batch(
        self,
        detector: BaseDetector,
        pictures: Tensor,
        samples: SampleList,
        training: bool,
    ) -> tuple[Tensor, SampleList]:
        """A batch as the detector's ``loss`` and ``extract_feat`` take it.

        Args:
            detector: What will read it.
            pictures: Decoded RGB, ``(N, 3, H, W)``, each valid in its ``img_shape``.
            samples: Their annotations. Not changed.
            training: Whether its random augmentations act.

        Returns:
            Inputs, with gradients, and annotations for them.
        """
        pairs = [
            self.for_training(
                picture[:, : sample.img_shape[0], : sample.img_shape[1]], sample
            )
            for picture, sample in zip(pictures, samples, strict=True)
        ]
        inputs, samples = (list(p) for p in zip(*pairs, strict=True))
        data = detector.data_preprocessor(
            {"inputs": inputs, "data_samples": samples}, training=training
        )
        return data["inputs"], data["data_samples"]


def for_latent(samples: SampleList, y_hat: Tensor, training: bool = True) -> SampleList:
    """Samples that know which pixels a latent stands for.

    Args:
        samples: With ``img_shape`` and, in training, annotations, at original size. Not
            changed.
        y_hat: ``(N, M, h, w)``, of the whole batch.
        training: Whether masks and semantic maps are padded to the batch.

    Returns:
        Copies with ``pad_shape`` (each picture's own) and ``batch_input_shape``.
    """
    batch = (Y_STRIDE * y_hat.shape[-2], Y_STRIDE * y_hat.shape[-1])
    samples = [sample.clone() for sample in samples]
    for sample in samples:
        own = tuple(-(-side // Z_STRIDE) * Z_STRIDE for side in sample.img_shape[:2])
        sample.set_metainfo(
            {"scale_factor": (1.0, 1.0), "pad_shape": own, "batch_input_shape": batch}
        )
        if training and "masks" in sample.get("gt_instances", {}):
            instances = sample.gt_instances.new()
            instances.masks = instances.masks.pad(batch)
            sample.gt_instances = instances
        if training and "gt_sem_seg" in sample:
            sample.gt_sem_seg = _padded(sample.gt_sem_seg.sem_seg, batch)
    return samples


def _padded(labels: Tensor, size: tuple[int, int]) -> PixelData:
    """A semantic map, ``(1, H, W)``, with 255 (ignored) to the right and below."""
    pad = (0, size[1] - labels.shape[2], 0, size[0] - labels.shape[1])
    return PixelData(sem_seg=F.pad(labels, pad, value=255))


def _scaled(
    instances: InstanceData,
    scale: tuple[float, float],
    size: tuple[int, int],
    padded: tuple[int, int],
) -> InstanceData:
    instances = instances.new()
    if "bboxes" in instances:
        x, y = (instances.bboxes[:, i::2] * scale[i] for i in range(2))
        instances.bboxes = torch.stack((x, y), -1).flatten(1)
    if "masks" in instances:
        instances.masks = instances.masks.resize(size).pad(padded)
    return instances
