"""The base class of machine losses.

D_m is a sum of losses that a config lists. The model weights them, prefixes the names
of their terms, and multiplies all of them by λ_m. A new loss needs these lines, in a
module that ``custom_imports`` lists::

    import torch
    from compressai_hm.detection import MachineLoss
    from mmdet.registry import MODELS

    @MODELS.register_module()
    class CosineFeatureLoss(MachineLoss):
        def forward(self, reading):
            levels = zip(reading.features, reading.reference)
            alike = [torch.cosine_similarity(a, b).mean() for a, b in levels]
            return {"loss_cosine": 1 - sum(alike) / len(alike)}

and in the config ``machine_losses=[dict(type="CosineFeatureLoss", weight=0.5)]``. Its
input is a :class:`Reading`; :class:`MachineLoss` says what it may use and must return.
"""

from torch import Tensor, nn

from ..frozen_detector import FrozenDetector
from ..reading import Reading


class MachineLoss(nn.Module):
    """A term of D_m, registered in MMDetection's MODELS.

    A subclass implements ``forward(reading)``, which gets a :class:`Reading` and
    returns terms by name. Terms with "loss" in their name are weighted and minimized,
    others are logged. The terms must depend on ``reading.view``. The only weights that
    they may train are those of the codec and of the model's detector: weights inside a
    loss stay fixed, and checkpoints leave them out.

    Args:
        weight: Factor of its terms. Defaults to 1.0.
        detector: A detector that reads the pictures in place of ``model.detector``: an
            MMDetection model config, a whole config, or the name of one. It stays
            frozen. Losses with equal detectors share one. Defaults to None.
        checkpoint: The weights of that detector, read in each run. It is required with
            ``detector``. Defaults to None.
        resize: As ``model.resize``, for that detector. Defaults to None.
        prefix: Prefix of its terms' names, "prefix.loss_cls". Defaults to the type of
            ``detector``, numbered if there are several, and to no prefix without
            ``detector``.

    Raises:
        ValueError: If these contradict each other.
    """

    annotations: str | None = None
    """The annotations that the loss needs: "labels", "boxes" or None. CheckDataHook
    checks that the data has them. ``refine`` has none, and uses a FeatureLoss."""

    compares: bool = True
    """Whether the loss uses ``reading.reference``. The detector must then be frozen,
    and decoded and uncompressed pictures are prepared together."""

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
                f"which names what is minimized; got {prefix!r}"
            )
        self.weight = weight
        self.prefix = prefix
        self.detector = None
        if detector is not None:
            self.detector = FrozenDetector(detector, checkpoint, resize)

    def forward(self, reading: Reading) -> dict[str, Tensor | list[Tensor]]:
        """Computes the terms.

        Args:
            reading: The batch as the loss's detector reads it.

        Returns:
            Terms by name, unweighted.
        """
        raise NotImplementedError(f"{type(self).__name__} must write forward(reading)")
