"""What a machine loss is, and what it gets.

D_m is a sum of losses, each a part that a config names; the model weighs them, names
their terms and multiplies all by λ_m. One of your own takes these lines, in a module
that ``custom_imports`` lists::

    import torch
    from compressai_hm.detection import MachineLoss
    from mmdet.registry import MODELS

    @MODELS.register_module()
    class CosineFeatureLoss(MachineLoss):
        def forward(self, reading):
            levels = zip(reading.features, reading.reference)
            alike = [torch.cosine_similarity(a, b).mean() for a, b in levels]
            return {"loss_cosine": 1 - sum(alike) / len(alike)}

and in the config ``machine_losses=[dict(type="CosineFeatureLoss", weight=0.5)]``. What
it gets is a :class:`Reading`; what it may ask for and returns, :class:`MachineLoss`.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import SampleList
from torch import Tensor, nn

from ..frozen_detector import FrozenDetector
from ..view import DetectorView, for_latent


@dataclass(eq=False)
class Decoded:
    """A batch before and after the codec.

    Args:
        x: The pictures, RGB in [0, 1], ``(N, 3, H, W)``, padded to the batch.
        views: What the codec made of them, with gradients and not clamped: "y_hat", and
            of "x_hat" and "x_bar" what the model's losses need.
        view: The one that machines read, ``model.task_view``.
        samples: With ``img_shape`` and the annotations, at original size.
        training: False while the encoder adapts to one picture, see ``refine``: there
            are no annotations, and random augmentations are left out.
    """

    x: Tensor
    views: dict[str, Tensor]
    view: Tensor
    samples: SampleList
    training: bool


@dataclass(eq=False)
class Reading(Decoded):
    """A batch as one detector reads it; computed when it is first asked for.

    Losses of one detector share it, and with it one pass for each feature pyramid.

    Args:
        detector: The loss's own, or the model's.
        resize: How decoded pictures become its input; None if it reads the latent.
        compares: Whether a loss asks for ``reference``: both are then prepared in one
            batch, so that random augmentations act on them alike.
    """

    detector: BaseDetector | None
    resize: DetectorView | None
    compares: bool

    @cached_property
    def _pair(self) -> tuple[Tensor, SampleList, Tensor | None]:
        if self.detector is None:
            raise ValueError(
                "model.machine_losses: a loss asks for a detector, and there is none: "
                "give model.detector, or detector and checkpoint to the loss"
            )
        if not self.compares:
            inputs, samples = self.resize.batch(
                self.detector, self.view, self.samples, self.training
            )
            return inputs, samples, None
        count = len(self.samples)
        inputs, samples = self.resize.batch(
            self.detector,
            torch.cat((self.view, self.x)),
            [*self.samples, *self.samples],
            self.training,
        )
        return inputs[:count], samples[:count], inputs[count:]

    @property
    def inputs(self) -> Tensor:
        """The detector's input: resized, letterboxed, normalised, padded."""
        return self._pair[0]

    @property
    def annotations(self) -> SampleList:
        """The samples, with annotations at the size of ``inputs``."""
        return self._pair[1]

    @cached_property
    def features(self) -> tuple[Tensor, ...]:
        """After the detector's neck, ``(N, C, h, w)`` a level, of the decoded view."""
        inputs = self.inputs  # says what is missing where there is no detector
        return self.detector.extract_feat(inputs)

    @cached_property
    def reference(self) -> tuple[Tensor, ...]:
        """The same of the uncompressed pictures, without gradients."""
        with torch.no_grad():
            return self.detector.extract_feat(self.reference_inputs)

    @property
    def reference_inputs(self) -> Tensor:
        """What ``inputs`` would be without the codec."""
        reference = self._pair[2]
        if reference is None:
            raise ValueError(
                "reading.reference: the loss's class says compares = False"
            )
        return reference


class LatentReading(Reading):
    """A batch of latents, read with no picture in between."""

    @cached_property
    def _pair(self) -> tuple[Tensor, SampleList, Tensor | None]:
        return self.view, for_latent(self.samples, self.view), None


class MachineLoss(nn.Module):
    """A term of D_m, registered in MMDetection's MODELS.

    A subclass writes ``forward(reading)``: it gets a :class:`Reading` and returns its
    terms by name. Those with "loss" in their name are weighed and minimised, others are
    logged. They must depend on ``reading.view``, and on weights of no network but the
    codec's and the model's detector's: a loss's own never train, and checkpoints leave
    them out.

    Args:
        weight: Factor of its terms. Defaults to 1.0.
        detector: What reads the pictures instead of ``model.detector``: an MMDetection
            model config, a whole config, or the name of one. It stays frozen. Of equal
            ones there is one. Defaults to None.
        checkpoint: The weights of that detector, read in each run; needed with it.
        resize: As ``model.resize``, for that detector. Defaults to None.
        prefix: Put before the names of its terms, "prefix.loss_cls". Defaults to the
            type of a detector of its own, numbered if there are several, and to nothing
            for the model's.

    Raises:
        ValueError: If these contradict each other.
    """

    annotations: str | None = None
    """What it needs of the pictures': "labels", "boxes" or None. CheckDataHook looks
    for it in the data; ``refine``, which has none, takes a FeatureLoss in its place."""

    compares: bool = True
    """Whether it asks for ``reading.reference``. The detector must then be frozen, and
    decoded and uncompressed pictures are prepared together."""

    def __init__(
        self,
        weight: float = 1.0,
        detector: dict | str | None = None,
        checkpoint: str | None = None,
        resize: dict | None = None,
        prefix: str | None = None,
    ):
        super().__init__()
        name = type(self).__name__
        if not (isinstance(weight, (int, float)) and 0 <= weight < float("inf")):
            raise ValueError(
                f"model.machine_losses: {name}.weight must be 0 or more, got {weight!r}"
            )
        if detector is None and (checkpoint is not None or resize is not None):
            raise ValueError(
                f"model.machine_losses: {name} has checkpoint={checkpoint!r} and "
                f"resize={resize!r}, and no detector of its own: give detector, or "
                "leave them out"
            )
        if detector is not None and not checkpoint:
            raise ValueError(
                f"model.machine_losses: {name}.detector needs a checkpoint: it is "
                "frozen, and random weights see nothing"
            )
        if prefix is not None and (not prefix or "loss" in prefix):
            raise ValueError(
                f"model.machine_losses: {name}.prefix must be a word without 'loss', "
                f"which names what is minimised; got {prefix!r}"
            )
        self.weight = weight
        self.prefix = prefix
        self.own = None
        if detector is not None:
            self.own = FrozenDetector(detector, checkpoint, resize)

    def forward(self, reading: Reading) -> dict[str, Tensor | list[Tensor]]:
        """Its terms by name, unweighted."""
        raise NotImplementedError
