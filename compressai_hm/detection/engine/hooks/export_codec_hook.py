"""Codecs in CompressAI's format, saved in training."""

import copy
import io
from pathlib import Path

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ....bitstream.reader import SUFFIX, StreamReader, identify_stream
from ....models.checkpoint import make_checkpoint
from ....models.human_machine import HumanMachineMixin
from ...models.detector import HumanMachineDetector
from ..atomic_backend import AtomicLocalBackend
from ..unwrap import unwrap_model


@HOOKS.register_module()
class ExportCodecHook(Hook):
    """Writes the codec in CompressAI's format beside each of MMEngine's checkpoints.

    ``<work_dir>/codec.pth.tar`` holds ``{"state_dict": ...}`` with unprefixed keys and
    the tables, and the model's name and options. The weights are the EMA's if there is
    one. ``from_state_dict`` and ``python -m compressai_hm.eval_model checkpoint`` read
    the file. If a reader is trained (``model.reader``), it is written to
    ``<work_dir>/<reader>.reader``. Each checkpoint overwrites the last.
    """

    priority = "LOWEST"  # after EMAHook has put its weights into the checkpoint

    @master_only
    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = unwrap_model(runner.model)
        net = copy.deepcopy(model.codec).cpu().eval()
        weights = {
            key.removeprefix("codec."): value
            for key, value in checkpoint["state_dict"].items()
            if key.startswith("codec.")
        }
        if "entropy" not in model.trainable:
            weights.update(model.codec.tables_state())
        net.hide_tables(False)
        net.load_state_dict(weights)
        net.update()
        with io.BytesIO() as f:
            torch.save(make_checkpoint(net), f)
            target = Path(runner.work_dir) / "codec.pth.tar"
            AtomicLocalBackend().put(f.getvalue(), target)
        if model.reader is not None:
            self._write_reader(runner, model, net, checkpoint["state_dict"])

    def _write_reader(
        self,
        runner: Runner,
        model: HumanMachineDetector,
        codec: HumanMachineMixin,
        weights: dict,
    ) -> None:
        net, reads = codec.g_t, "x_hat"
        if model.task_view == "y_hat":
            net, reads = copy.deepcopy(model.detector.backbone.latent).cpu(), "y_hat"
            prefix = "detector.backbone.latent."
            net.load_state_dict(
                {
                    key.removeprefix(prefix): value
                    for key, value in weights.items()
                    if key.startswith(prefix)
                }
            )
        reader = StreamReader(model.reader, reads, identify_stream(codec, reads), net)
        reader.save(Path(runner.work_dir) / f"{model.reader}{SUFFIX}")
