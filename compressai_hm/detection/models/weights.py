"""Starting weights of a HumanMachineDetector, and checks of its checkpoints."""

import logging
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from ..load import load_detector, mismatches


class WeightsMixin:
    """Loads starting weights, and refuses checkpoints of another model.

    The model has ``codec``, ``_codec_weights`` (a function that loads its starting
    weights, or None), ``detector`` (or None), ``_detector_checkpoint``,
    ``machine_losses``, ``detector_regions`` (or None) and ``trainable``.
    """

    replaced_prefix: str | None = None
    """Prefix of the detector's weights that its own checkpoint does not hold."""

    detector_classes: tuple[str, ...] | None = None
    """The classes in the detector's checkpoint; CheckDataHook compares the data's."""

    def init_weights(self) -> None:
        """Loads the weights that the config starts from.

        Raises:
            RuntimeError: If a checkpoint is of another model.
        """
        if self.detector is not None:
            if self.replaced_prefix or not self._detector_checkpoint:
                self.detector.init_weights()
            if self._detector_checkpoint:
                self._load_detector()
            elif (
                self._uses_machine_loss
                and self.machine_losses.find_losses(None)
                and "detector" not in self.trainable
            ):
                print_log(
                    "the detector is frozen and has no model.detector_checkpoint",
                    "current",
                    logging.WARNING,
                )
        if self._uses_machine_loss:
            self.machine_losses.load()
        if self.detector_regions is not None:
            self.detector_regions.load()
        if self._codec_weights:
            weights = self._codec_weights()
            try:
                self.codec.load_state_dict(weights)
            except (RuntimeError, KeyError) as e:
                raise RuntimeError(
                    f"the codec's starting weights are of another model than "
                    f"{type(self.codec).__name__}: {e}"
                ) from e
        self._is_init = True

    def _load_detector(self) -> None:
        self.detector_classes = load_detector(
            self.detector, self._detector_checkpoint, self.replaced_prefix
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Called by torch's loader, and by MMEngine's, which only warns of mismatches.
        codec = {f"{prefix}codec.{k}": v for k, v in self.codec.state_dict().items()}
        wrong = [
            key
            for key, value in codec.items()
            if key not in state_dict or state_dict[key].shape != value.shape
        ]
        if wrong:
            raise RuntimeError(
                f"the checkpoint is of another model than this HumanMachineDetector "
                f"with {type(self.codec).__name__}: {len(wrong)} of {len(codec)} codec "
                f"weights are missing or of another shape, the first is {wrong[0]}"
            )
        if self.detector is not None:
            self._check_detector(state_dict, f"{prefix}detector.")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _check_detector(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Checks the detector's weights in a checkpoint.

        A checkpoint without a detector, of a codec that was trained alone, is completed
        with the config's detector.
        """
        keys = {k for k in state_dict if k.startswith(prefix)}
        if not keys and self.replaced_prefix:
            raise RuntimeError(
                "the checkpoint holds no latent backbone: it is of another model than "
                "this LatentHumanMachineDetector"
            )
        if not keys and self._detector_checkpoint:
            self._load_detector()
            print_log(
                f"the checkpoint holds no detector: took {self._detector_checkpoint}",
                "current",
            )
            for key, value in self.detector.state_dict().items():
                state_dict[prefix + key] = value
        wrong = mismatches(
            self.detector, {k.removeprefix(prefix): state_dict[k] for k in keys}
        )
        if (keys and wrong) or (not keys and not self._detector_checkpoint):
            raise RuntimeError(
                f"the checkpoint is of another model: {len(wrong)} weights of the "
                f"{type(self.detector).__name__} are missing or of another shape, the "
                f"first is {prefix}{wrong[0]}"
            )
