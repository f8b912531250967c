"""Choice of the parts of codec and detector that train, and freezing of the others."""

from mmengine.logging import print_log
from torch import nn

from ...bitstream.reader import check_name
from ..frozen_detector import freeze_statistics

PARTS = ("g_a", "g_s", "entropy", "g_t", "latent_backbone", "detector")


class TrainablePartsMixin:
    """Freezes the parts that a config does not train or that no loss reaches.

    DDP then never waits for a parameter without gradient. The model has ``codec``,
    ``detector`` (or None), ``machine_losses``, ``lambda_human``, ``lambda_machine`` and
    ``task_view``.
    """

    reader_part = "g_t"
    """The part that is trained as a reader of a frozen stream."""

    trainable: tuple[str, ...]
    """The parts that train."""

    def part_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Returns the parameters of each part by its name.

        The bottleneck's quantiles are a part of their own, "quantiles".
        """
        parts: dict[str, list[nn.Parameter]] = {p: [] for p in (*PARTS, "quantiles")}
        for name, parameter in self.codec.named_parameters():
            part = name.split(".")[0]
            if name.endswith(".quantiles"):
                part = "quantiles"
            elif part not in PARTS:
                part = "entropy"
            parts[part].append(parameter)
        if self.detector is not None:
            for name, parameter in self.detector.named_parameters():
                parts[self._find_part(name)].append(parameter)
        return parts

    def _find_part(self, name: str) -> str:
        return "detector"

    @property
    def stream_frozen(self) -> bool:
        """Returns whether training leaves the codec's streams as they are."""
        return not {"g_a", "entropy"} & set(self.trainable)

    @property
    def _uses_machine_loss(self) -> bool:
        return self.lambda_machine > 0 and bool(self.machine_losses)

    def _find_reached(self) -> set[str]:
        """Returns the parts that the losses reach."""
        reached = {"g_a", "entropy"}  # through R
        if self.lambda_human:
            reached.add("g_s")
        if self._uses_machine_loss:
            reached |= self._find_machine_parts()
            if self.machine_losses.find_losses(None):
                reached.add("detector")
        return reached

    def _find_machine_parts(self) -> set[str]:
        return {"g_s", "g_t"} if self.task_view == "x_bar" else {"g_s"}

    def _set_trainable(self, asked: tuple[str, ...] | None) -> None:
        reached = self._find_reached()
        unreached = sorted(set(asked or ()) - reached)
        if unreached:
            print_log(
                f"{', '.join(unreached)} not reached by the loss (lambda_human="
                f"{self.lambda_human}, lambda_machine={self.lambda_machine}, "
                f"task_view={self.task_view}): frozen",
                "current",
            )
        asked = PARTS[:-1] if asked is None else asked
        self.trainable = tuple(p for p in PARTS if p in asked and p in reached)
        for part, parameters in self.part_parameters().items():
            part = "entropy" if part == "quantiles" else part
            if part not in self.trainable:
                for parameter in parameters:
                    parameter.requires_grad_(False)

    def _check_reader(self, reader: str | None) -> None:
        if reader is None:
            return
        check_name(reader)
        part = self.reader_part
        moved = {"g_a", "g_s", "entropy"} & set(self.trainable)
        empty = not self.part_parameters()[part]
        if moved or empty or part not in self.trainable:
            raise ValueError(
                f"model.reader={reader!r} is {part} trained on a frozen "
                f"stream; model.trainable={list(self.trainable)}"
                + (f", and there is no {part}" if empty else "")
            )

    def train(self, mode: bool = True) -> nn.Module:
        """Sets the mode; frozen parts and a frozen stream stay in eval mode.

        Args:
            mode: The mode. Defaults to True.

        Returns:
            The model.
        """
        super().train(mode)
        if mode and self.stream_frozen:  # as the stream is coded, without noise
            self.codec.eval()
            for part in set(self.trainable) & {"g_s", "g_t"}:
                self.codec.get_submodule(part).train()
        if mode and self.detector is not None and "detector" not in self.trainable:
            freeze_statistics(self.detector)
        self.machine_losses.train(mode)
        return self
