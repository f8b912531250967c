"""A detector whose neck and heads read the latent without a decoded picture."""

from typing import Any

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from torch import Tensor

from ...models.human_machine import HumanMachineMixin
from ..configs import read_latent
from ..reading import Decoded, LatentReading, Reading
from ..view import prepare_latent_samples
from .detector import HumanMachineDetector


@MODELS.register_module()
class LatentHumanMachineDetector(HumanMachineDetector):
    """Codes a picture, and runs a detector on the latent at the original size.

    ::

        x ─► codec ─┬─► x_hat (humans)
                    └─► y_hat ─► LatentBackbone ─► the detector's neck and heads

    The other arguments are those of :class:`HumanMachineDetector`. ``resize`` is not
    used. Losses that compare pictures, or that have a detector of their own, are
    refused.

    Args:
        latent_backbone: ``width`` and ``depth`` of the :class:`LatentBackbone`. Its
            levels and channels are those of the detector's backbone, which it replaces.
            Defaults to None, the LatentBackbone's defaults.

    Raises:
        ValueError: If the codec has no latent, or a loss needs pictures.
    """

    task_views = ("y_hat",)
    reader_part = "latent_backbone"
    replaced_prefix = "backbone."

    def __init__(self, *args: Any, latent_backbone: dict | None = None, **kwargs: Any):
        self._latent_backbone = latent_backbone or {}  # used by super().__init__
        super().__init__(*args, **kwargs)

    def _adapt_detector(self, detector: dict) -> dict:
        if not self.codec.learned:
            raise ValueError(
                f"model.codec {type(self.codec).__name__} has no latent for "
                "LatentHumanMachineDetector"
            )
        return read_latent(detector, self.codec, self._latent_backbone)

    def _check_losses(self) -> None:
        for loss in self.machine_losses.losses if self._uses_machine_loss else ():
            if loss.detector is not None:
                raise ValueError(
                    f"model.machine_losses: the detector of {type(loss).__name__} "
                    "reads pictures, and LatentHumanMachineDetector has none"
                )
            if loss.compares:
                raise ValueError(
                    f"model.machine_losses: {type(loss).__name__} (as features and "
                    "objects) compares the detector's features of two pictures, and "
                    "LatentHumanMachineDetector has none"
                )

    def _find_part(self, name: str) -> str:
        return "latent_backbone" if name.startswith("backbone.") else "detector"

    def _find_machine_parts(self) -> set[str]:
        return {"latent_backbone"}

    def _choose_views(self) -> tuple[str, ...]:
        return ("human",) if self.lambda_human else ()

    def read(self, decoded: Decoded, compares: bool) -> Reading:
        """Reads a batch of latents in training.

        Args:
            decoded: The batch.
            compares: Whether losses compare pictures, which is refused.

        Returns:
            The latents as the detector's neck and heads read them.
        """
        return LatentReading(
            **vars(decoded), detector=self.detector, resize=None, compares=compares
        )

    def refine(
        self, x: Tensor, iterations: int, codec: HumanMachineMixin | None = None
    ) -> Tensor:
        """Adapts the latent of one picture at the encoder, for people only.

        See :meth:`HumanMachineDetector.refine`.

        Raises:
            ValueError: If the model has machine losses, because features have no
                reference.
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
            The latent, and the sample that goes with it.
        """
        return view, prepare_latent_samples([sample], view, training=False)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the detector's features of the latents, ``(N, C, h, w)`` a level.

        Args:
            batch_inputs: Pictures, ``(N, 3, H, W)`` in [0, 1].
        """
        latent = self.codec.code_latent(self.codec.analyze(batch_inputs))
        return self.detector.extract_feat(latent["y_hat"])
