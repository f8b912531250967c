"""A decoded batch, and the features that a detector computes from it in training."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import SampleList
from torch import Tensor

from .view import DetectorView, prepare_latents


@dataclass(eq=False)
class Decoded:
    """A batch before and after the codec.

    Args:
        x: The pictures, RGB in [0, 1], ``(N, 3, H, W)``, padded to the batch.
        views: The codec's output, with gradients and not clamped: "y_hat", and those of
            "x_hat" and "x_bar" that the model's losses need.
        view: The view that machines read, ``model.task_view``.
        samples: Samples with ``img_shape`` and annotations, at original size.
        training: False while the encoder adapts to one picture, see ``refine``. Then
            there are no annotations and no random augmentations.
    """

    x: Tensor
    views: dict[str, Tensor]
    view: Tensor
    samples: SampleList
    training: bool


@dataclass(eq=False)
class Reading(Decoded):
    """A batch as one detector reads it. Each attribute is computed when first used.

    Losses of one detector share a Reading, so that each feature pyramid is computed
    once.

    Args:
        detector: The loss's detector, or the model's.
        resize: Turns decoded pictures into the detector's input.
        compares: Whether a loss uses ``reference``. Decoded and uncompressed pictures
            are then prepared in one batch, so that random augmentations are the same.
    """

    detector: BaseDetector | None
    resize: DetectorView | None
    compares: bool

    @cached_property
    def _batch(self) -> tuple[Tensor, SampleList, Tensor | None]:
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
    def teacher(self) -> BaseDetector:
        """Returns the detector that reads the uncompressed pictures."""
        return self.detector

    @property
    def inputs(self) -> Tensor:
        """Returns the detector's input: resized, letterboxed, normalized, padded."""
        return self._batch[0]

    @property
    def annotations(self) -> SampleList:
        """Returns the samples, with annotations at the size of ``inputs``."""
        return self._batch[1]

    @cached_property
    def features(self) -> tuple[Tensor, ...]:
        """Returns the neck's features of the decoded view, ``(N, C, h, w)`` a level."""
        inputs = self.inputs  # raises a clear error if there is no detector
        return self.detector.extract_feat(inputs)

    @contextmanager
    def share_features(self) -> Iterator[None]:
        """Lets the detector's own methods use ``features`` for ``inputs``.

        Losses that compare features and the detector's losses then need one pass.

        Returns:
            A context.
        """
        original = self.detector.extract_feat

        def extract(inputs: Tensor) -> tuple[Tensor, ...]:
            if inputs is not self.inputs:
                return original(inputs)
            if "features" not in vars(self):
                self.features = original(inputs)
            return self.features

        self.detector.extract_feat = extract
        try:
            yield
        finally:
            del self.detector.extract_feat  # copies must not call this detector's

    @cached_property
    def reference(self) -> tuple[Tensor, ...]:
        """Returns the neck's features of the uncompressed pictures, detached."""
        with torch.no_grad():
            return self.teacher.extract_feat(self.reference_inputs)

    @property
    def reference_inputs(self) -> Tensor:
        """Returns the teacher's input for the uncompressed pictures.

        Raises:
            ValueError: If the losses' classes say that they compare nothing.
        """
        reference = self._batch[2]
        if reference is None:
            raise ValueError(
                "reading.reference: the loss's class says compares = False"
            )
        return reference


@dataclass(eq=False)
class LatentReading(Reading):
    """A batch of latents, which a detector reads without decoded pictures.

    Args:
        frozen: The detector before its backbone was replaced, which reads the
            uncompressed pictures; None if no loss compares.
        ratio: Factor of the size at which both read.
    """

    frozen: BaseDetector | None = None
    ratio: float = 1.0

    @property
    def teacher(self) -> BaseDetector:
        """Returns the detector that reads the uncompressed pictures."""
        return self.frozen

    @cached_property
    def _batch(self) -> tuple[Tensor, SampleList, Tensor | None]:
        inputs, samples = prepare_latents(
            self.detector, self.resize, self.view, self.samples, self.ratio
        )
        if not self.compares:
            return inputs, samples, None
        reference, _ = self.resize.batch(
            self.frozen, self.x, self.samples, training=False, ratio=self.ratio
        )
        return inputs, samples, reference
