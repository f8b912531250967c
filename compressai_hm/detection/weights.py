"""What a HumanMachineDetector starts from, and which checkpoints are its own."""

import logging
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from .build import load_detector, mismatches


class WeightsMixin:
    """Loads what a config starts from, and refuses checkpoints of another model.

    The model has ``codec``, ``_codec_weights`` (a function that gets its starting
    weights, or None), ``detector`` (or None), ``_detector_checkpoint``,
    ``machine_losses``, ``attention`` (or None) and ``trainable``.
    """

    anew: str | None = None
    """Prefix of the detector's weights that its own checkpoint does not hold."""

    detector_classes: tuple[str, ...] | None = None
    """That the detector's checkpoint names; CheckDataHook compares the data's."""

    def init_weights(self) -> None:
        """Loads what the config starts from.

        Raises:
            RuntimeError: If a checkpoint is of another model.
        """
        if self.detector is not None:
            if self.anew or not self._detector_checkpoint:
                self.detector.init_weights()
            if self._detector_checkpoint:
                self._load_detector()
            elif (
                self._uses_machine_loss
                and self.machine_losses.of(None)
                and "detector" not in self.trainable
            ):
                print_log(
                    "the detector is frozen and has no model.detector_checkpoint",
                    "current",
                    logging.WARNING,
                )
        if self._uses_machine_loss:
            self.machine_losses.load()
        if self.attention is not None:
            self.attention.load()
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
            self.detector, self._detector_checkpoint, self.anew
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Called by torch's and by MMEngine's loader, which only warns of mismatches.
        own = {f"{prefix}codec.{k}": v for k, v in self.codec.state_dict().items()}
        wrong = [
            key
            for key, value in own.items()
            if key not in state_dict or state_dict[key].shape != value.shape
        ]
        if wrong:
            raise RuntimeError(
                f"the checkpoint is of another model than this HumanMachineDetector "
                f"with {type(self.codec).__name__}: {len(wrong)} of {len(own)} codec "
                f"weights are missing or of another shape, the first is {wrong[0]}"
            )
        if self.detector is not None:
            self._check_detector(state_dict, f"{prefix}detector.")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _check_detector(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """A codec trained alone may be tested with the config's detector."""
        found = {k for k in state_dict if k.startswith(prefix)}
        if not found and self.anew:
            raise RuntimeError(
                "the checkpoint holds no latent backbone: it is of another model than "
                'this HumanMachineDetector with task_view="y_hat"'
            )
        if not found and self._detector_checkpoint:
            self._load_detector()
            print_log(
                f"the checkpoint holds no detector: took {self._detector_checkpoint}",
                "current",
            )
            for key, value in self.detector.state_dict().items():
                state_dict[prefix + key] = value
        wrong = mismatches(
            self.detector, {k.removeprefix(prefix): state_dict[k] for k in found}
        )
        if (found and wrong) or (not found and not self._detector_checkpoint):
            raise RuntimeError(
                f"the checkpoint is of another model: {len(wrong)} weights of the "
                f"{type(self.detector).__name__} are missing or of another shape, the "
                f"first is {prefix}{wrong[0]}"
            )
