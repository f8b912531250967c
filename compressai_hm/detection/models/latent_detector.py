"""A detector whose neck and heads read the latent without a decoded picture."""

import math
import zlib
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.logging import print_log
from torch import Tensor, nn

from ...entropy import QuantSteps
from ...models.human_machine import HumanMachineMixin, picture_bits
from ..configs import read_latent
from ..frozen_detector import FrozenDetector, freeze_statistics
from ..reading import Decoded, LatentReading, Reading
from ..view import prepare_latents
from .detector import HumanMachineDetector


@MODELS.register_module()
class LatentHumanMachineDetector(HumanMachineDetector):
    """Codes a picture, and runs a detector's neck and heads on the latent.

    ::

        x ─► codec ─┬─► x_hat (humans)
                    └─► y_hat ─► LatentBackbone ─► the detector's later parts

    The LatentBackbone replaces the backbone's stages up to stride 8, see
    :class:`StagedLatentBackbone`. The latent is resampled to the size at which the
    detector reads pictures. Losses
    that compare (FeatureLoss, HeadLoss, PseudoLabelLoss) let the detector teach: with
    its own backbone and ``detector_checkpoint`` it reads the uncompressed pictures. The
    other arguments are those of :class:`HumanMachineDetector`. Losses that have a
    detector of their own are refused.

    Args:
        latent_backbone: ``widths`` and ``depths`` of the :class:`LatentBackbone`.
            Defaults to None, its defaults.
        ratio_range: Random factors of the detector's size in training. Defaults to
            (1, 1).
        latent_cache: ``dict(variants=3, bytes=4e9)`` keeps the latents of whole
            training pictures in memory, in half precision, because coding takes longer
            than training on them. Each picture has that many, with different random
            steps. Needs a frozen stream, and a pipeline without crops. Defaults to
            None.

    Raises:
        ValueError: If the codec has no latent, or an argument is invalid.
    """

    task_views = ("y_hat",)
    reader_part = "latent_backbone"
    replaced_prefix = "backbone.latent."

    def __init__(
        self,
        *args: Any,
        latent_backbone: dict | None = None,
        ratio_range: tuple[float, float] = (1.0, 1.0),
        latent_cache: dict | None = None,
        **kwargs: Any,
    ):
        self._latent_backbone = latent_backbone or {}  # used by super().__init__
        self.teacher: FrozenDetector | None = None
        super().__init__(*args, **kwargs)
        if len(ratio_range) != 2 or not 0 < ratio_range[0] <= ratio_range[1]:
            raise ValueError(
                f"model.ratio_range must be (low, high) above 0, got {ratio_range}"
            )
        self.ratio_range = tuple(ratio_range)
        if latent_cache is not None and not self.stream_frozen:
            raise ValueError(
                "model.latent_cache needs a frozen stream: leave g_a and entropy out "
                "of model.trainable"
            )
        self._cache = None if latent_cache is None else _LatentCache(**latent_cache)

    @torch.no_grad()
    def _adapt_detector(self, detector: dict) -> dict:
        if not self.codec.learned:
            raise ValueError(
                f"model.codec {type(self.codec).__name__} has no latent for "
                "LatentHumanMachineDetector"
            )
        self._picture_detector = detector
        options = {"scale": self.view.scale or (0, 0), **self._latent_backbone}
        channels = self.codec.analyze(torch.zeros(1, 3, 64, 64)).shape[1]
        return read_latent(detector, channels, options)

    def _check_losses(self) -> None:
        losses = self.machine_losses.losses if self._uses_machine_loss else []
        for loss in losses:
            if loss.detector is not None:
                raise ValueError(
                    f"model.machine_losses: the detector of {type(loss).__name__} "
                    "reads pictures, and LatentHumanMachineDetector has none"
                )
        comparing = [type(loss).__name__ for loss in losses if loss.compares]
        if not comparing or self.detector is None:
            return
        if not self._detector_checkpoint:
            raise ValueError(
                f"model.machine_losses: {comparing[0]} needs the detector's weights to "
                "teach: give model.detector_checkpoint"
            )
        self.teacher = FrozenDetector(
            self._picture_detector, self._detector_checkpoint, self.view.options
        )
        self.teacher.build()

    def init_weights(self) -> None:
        """Loads the weights that the config starts from, and the teacher's."""
        super().init_weights()
        if self.teacher is not None:
            self.teacher.load()

    def train(self, mode: bool = True) -> nn.Module:
        """Sets the mode; statistics that come from a checkpoint stay as they are.

        Args:
            mode: The mode. Defaults to True.

        Returns:
            The model.
        """
        super().train(mode)
        if self._detector_checkpoint and self.detector is not None:
            freeze_statistics(self.detector)
        return self

    def _find_part(self, name: str) -> str:
        return self.reader_part if name.startswith(self.replaced_prefix) else "detector"

    def _find_machine_parts(self) -> set[str]:
        return {"latent_backbone"}

    def _choose_views(self) -> tuple[str, ...]:
        return ("human",) if self.lambda_human else ()

    def _code(
        self, x: Tensor, samples: SampleList
    ) -> tuple[dict, list[QuantSteps] | None]:
        if self._cache is None or not self.training:
            return super()._code(x, samples)
        coded = [
            self._cache.get(
                sample, lambda x=x[i : i + 1], s=sample: self._code_one(x, s)
            )
            for i, sample in enumerate(samples)
        ]
        size = [max(y.shape[i] for y, _ in coded) for i in (1, 2)]
        latents = [
            F.pad(y, (0, size[1] - y.shape[2], 0, size[0] - y.shape[1]))
            for y, _ in coded
        ]
        latent = {
            "y_hat": torch.stack(latents).to(x),
            "bits": x.new_tensor([bits for _, bits in coded]),
        }
        return latent, None  # steps weigh gradients of the stream, which is frozen

    def _code_one(self, x: Tensor, sample: DetDataSample) -> tuple[Tensor, float]:
        """Returns the latent of one picture without a batch's padding, and its bits."""
        size = tuple(sample.img_shape[:2])
        y = self.codec.analyze(x[..., : size[0], : size[1]])
        steps = None if self.steps is None else self.steps.draw(1, y.shape[-2:])
        latent = self.codec.code_latent(y, steps)
        bits = float(picture_bits(latent["likelihoods"], [size])[0])
        return latent["y_hat"][0].half().cpu(), bits

    def read(self, decoded: Decoded, compares: bool) -> Reading:
        """Reads a batch of latents in training.

        Args:
            decoded: The batch.
            compares: Whether the uncompressed pictures are read as well.

        Returns:
            The latents as the detector's neck and heads read them.
        """
        teacher = self.teacher.on(decoded.x.device) if compares else None
        ratio = self.view.draw_ratio(*self.ratio_range) if decoded.training else 1.0
        return LatentReading(
            **vars(decoded),
            detector=self.detector,
            resize=self.view,
            compares=compares,
            frozen=teacher,
            ratio=ratio,
        )

    def refine(
        self, x: Tensor, iterations: int, codec: HumanMachineMixin | None = None
    ) -> Tensor:
        """Adapts the latent of one picture at the encoder, for people only.

        See :meth:`HumanMachineDetector.refine`.

        Raises:
            ValueError: If the model has machine losses, because refinement is by
                features of pictures.
        """
        if self._uses_machine_loss:
            raise ValueError(
                "refinement needs features of pictures, and "
                "LatentHumanMachineDetector has none"
            )
        return super().refine(x, iterations, codec)

    def prepare_for_detector(
        self, view: Tensor, sample: DetDataSample
    ) -> tuple[Tensor, SampleList]:
        """Returns the inputs of the detector's ``predict`` for one latent.

        Args:
            view: The latent, ``(1, M, h, w)``.
            sample: The picture's sample with ``img_shape``.

        Returns:
            The resampled latent, and the sample that goes with it.
        """
        return prepare_latents(self.detector, self.view, view, [sample])

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the detector's features of the latents, ``(N, C, h, w)`` a level.

        Args:
            batch_inputs: Pictures, ``(N, 3, H, W)`` in [0, 1].
        """
        latent = self.codec.code_latent(self.codec.analyze(batch_inputs))
        size = {"img_shape": tuple(batch_inputs.shape[-2:])}
        samples = [DetDataSample(metainfo=size) for _ in batch_inputs]
        inputs, _ = prepare_latents(self.detector, self.view, latent["y_hat"], samples)
        return self.detector.extract_feat(inputs)


class _LatentCache:
    """Latents of training pictures by path, flip and variant.

    The random steps of a variant depend on these alone. So a training that is resumed,
    or whose memory is full, sees the same latents.

    Args:
        variants: Latents of each picture.
        bytes: The memory that it may fill; later latents are coded each time.
    """

    def __init__(self, variants: int = 3, bytes: float = 4e9):
        if variants < 1 or bytes < 0:
            raise ValueError(
                "model.latent_cache takes variants from 1 on and bytes from 0 on, got "
                f"variants={variants}, bytes={bytes}"
            )
        print_log(f"coded latents take up to {bytes / 1e9:.2f} GB of memory", "current")
        self.variants, self.free = variants, bytes
        self._kept: dict[tuple, tuple] = {}

    def get(self, sample: DetDataSample, code: Any) -> tuple:
        """Returns a random variant of a picture; ``code()`` makes one that is new."""
        flip = str(sample.metainfo.get("flip_direction"))
        variant = int(torch.randint(self.variants, ()))
        key = (str(sample.img_path), flip, variant)
        if key in self._kept:
            return self._kept[key]
        with torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(repr(key).encode()))
            made = code()
        size = 2 * math.prod(made[0].shape)
        if size <= self.free:
            self.free -= size
            self._kept[key] = made
        return made
