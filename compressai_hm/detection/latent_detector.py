"""A detector's neck and heads on the latent, with no picture in between."""

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from torch import Tensor

from ..codecs import HumanMachineMixin
from .build import read_latent
from .detector import HumanMachineDetector
from .losses import Decoded, LatentReading, Reading
from .view import for_latent


@MODELS.register_module()
class LatentHumanMachineDetector(HumanMachineDetector):
    """Codes a picture, and lets a detector read the latent at the original size.

    ::

        x ─► codec ─┬─► x_hat (humans)
                    └─► y_hat ─► LatentBackbone ─► the detector's neck and heads

    ``type="HumanMachineDetector", task_view="y_hat"`` builds it.

    Args:
        latent_backbone: ``width`` and ``depth`` of the :class:`LatentBackbone`. Levels
            and channels are those of the detector's own backbone, which it replaces.
            Defaults to None, its own defaults.

    The other arguments are those of :class:`HumanMachineDetector`. ``resize`` is not
    used, and losses that compare pictures, or bring a detector of their own, are
    refused.

    Raises:
        ValueError: If the codec has no latent, or a loss needs pictures.
    """

    task_views = ("y_hat",)
    reader_part = "latent_backbone"
    anew = "backbone."

    def _adapted(self, detector: dict, latent_backbone: dict | None) -> dict:
        if not self.codec.learned:
            raise ValueError(
                f"model.codec {type(self.codec).__name__} has no latent for "
                'model.task_view="y_hat"'
            )
        return read_latent(detector, self.codec, latent_backbone or {})

    def _check_losses(self) -> None:
        for loss in self.machine_losses.losses if self._uses_machine_loss else ():
            if loss.own is not None:
                raise ValueError(
                    f"model.machine_losses: the detector of {type(loss).__name__} "
                    'reads pictures, and with task_view="y_hat" there is none'
                )
            if loss.compares:
                raise ValueError(
                    f"model.machine_losses: {type(loss).__name__} (as features and "
                    "objects) compares the detector's features of two pictures; with "
                    'task_view="y_hat" there is one'
                )

    def _part_of(self, name: str) -> str:
        return "latent_backbone" if name.startswith("backbone.") else "detector"

    def _reached_by_machines(self) -> set[str]:
        return {"latent_backbone"}

    def _wanted_views(self) -> tuple[str, ...]:
        return ("human",) if self.lambda_human else ()

    def read(self, decoded: Decoded, compares: bool) -> Reading:
        """The latents as the detector's neck and heads read them."""
        return LatentReading(
            **vars(decoded), detector=self.detector, resize=None, compares=compares
        )

    def refine(
        self, x: Tensor, steps: int, codec: HumanMachineMixin | None = None
    ) -> Tensor:
        """Of the codec alone: see :meth:`HumanMachineDetector.refine`.

        Raises:
            ValueError: If machines are asked, whose features have no reference.
        """
        if self._uses_machine_loss:
            raise ValueError(
                'refinement needs features of pictures; task_view is "y_hat"'
            )
        return super().refine(x, steps, codec)

    def for_detector(
        self, view: Tensor, sample: DetDataSample
    ) -> tuple[Tensor, SampleList]:
        """What the detector's predict takes, of one latent ``(1, M, h, w)``."""
        return view, for_latent([sample], view, training=False)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """The detector's features of the latents of ``(N, 3, H, W)`` pictures."""
        latent = self.codec.code_latent(self.codec.analyse(batch_inputs))
        return self.detector.extract_feat(latent["y_hat"])
