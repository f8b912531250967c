"""A codec in front of any MMDetection detector.

L = R(y_hat, z_hat) + λ_h D_h(x, x_hat) + λ_m D_m(x, x_bar)

with R in bits per original pixel, D_h the MSE times 255^2 and D_m the detector's own
losses on the decoded view.
"""

import logging
from contextlib import nullcontext

import torch
import torch.nn as nn
from mmcv.cnn.bricks import DropPath
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.logging import print_log
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ..codecs import Anchor, picture_bits
from .build import build_codec, detector_config, load_detector, mismatches
from .view import DetectorView

PARTS = ("g_a", "g_s", "entropy", "g_t", "detector")


@MODELS.register_module()
class HumanMachineDetector(BaseDetector):
    """Codes a picture, decodes it, and lets a detector read it.

    ::

        x ─► codec ─┬─► x_hat (humans)
                    └─► x_bar (machines) ─► resize, letterbox ─► detector

    Args:
        codec: ``type``, a name of CompressAI's zoo or registry, and its arguments
            (``quality``, ``metric``, ``pretrained``, or ``N``, ``M``, ...). With
            ``checkpoint`` it starts from that file, URL or ``compressai_hm://`` name.
            For testing also an anchor: ``dict(type="hevc", quality=32)``.
        detector: An MMDetection model config; or a whole config, or the name of one
            (such as "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"). None trains
            the codec alone. Defaults to None.
        detector_checkpoint: Weights of the detector. Defaults to None.
        lambda_human: λ_h, CompressAI's λ. Defaults to 0.0067.
        lambda_machine: λ_m. 0 leaves the detector out of training. Defaults to 1.0.
        task_view: What the detector reads, "x_bar" or "x_hat". Defaults to "x_bar".
        resize: :class:`DetectorView`'s arguments. Defaults to what the test pipeline
            of a whole config does; to MMDetection's (1333, 800) for a model config.
        trainable: The parts that train, among g_a, g_s, entropy (h_a, h_s, context,
            bottleneck), g_t and detector. Defaults to all but the detector.
        data_preprocessor: Defaults to HumanMachineDataPreprocessor.
        backbone: Stays empty; ``mmdet.apis.init_detector`` looks for it in configs.
        coding: "bytes" codes and decodes real bitstreams at evaluation; "forward"
            takes the codec's eval forward and its likelihoods. Defaults to "bytes".

    Raises:
        TypeError: If ``codec`` is missing.
        ValueError: For an unknown name, quality, part or view, or a negative λ.
    """

    def __init__(
        self,
        codec: dict | None = None,
        detector: dict | str | None = None,
        detector_checkpoint: str | None = None,
        lambda_human: float = 0.0067,
        lambda_machine: float = 1.0,
        task_view: str = "x_bar",
        resize: dict | None = None,
        trainable: tuple[str, ...] = PARTS[:4],
        coding: str = "bytes",
        data_preprocessor: dict | None = None,
        backbone: dict | None = None,
    ):
        super().__init__(data_preprocessor or dict(type="HumanMachineDataPreprocessor"))
        for name, value in (
            ("lambda_human", lambda_human),
            ("lambda_machine", lambda_machine),
        ):
            if not value >= 0:
                raise ValueError(f"model.{name} must be 0 or more, got {value}")
        for name, value, known in (
            ("task_view", {task_view}, {"x_bar", "x_hat"}),
            ("coding", {coding}, {"bytes", "forward"}),
            ("trainable", set(trainable), set(PARTS)),
        ):
            if value - known:
                raise ValueError(
                    f"model.{name} knows {sorted(known)}, got {sorted(value - known)}"
                )
        if backbone:
            raise ValueError(
                "model.backbone must stay empty: the detector's is in model.detector"
            )
        self.lambda_human = lambda_human
        self.lambda_machine = lambda_machine
        self.task_view = task_view
        self.coding = coding

        self.codec, self._codec_weights = build_codec(codec)
        self.detector = None
        self._detector_checkpoint = detector_checkpoint
        if detector is not None:
            detector, resize = detector_config(detector, resize)
            self.detector = MODELS.build(detector)
            self.view = DetectorView(**resize)
        self._set_trainable(trainable)

    def part_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each part, the bottleneck's quantiles apart."""
        parts: dict[str, list[nn.Parameter]] = {p: [] for p in (*PARTS, "quantiles")}
        for name, parameter in self.codec.named_parameters():
            part = name.split(".")[0]
            if name.endswith(".quantiles"):
                part = "quantiles"
            elif part not in PARTS:
                part = "entropy"
            parts[part].append(parameter)
        if self.detector is not None:
            parts["detector"] = list(self.detector.parameters())
        return parts

    def _set_trainable(self, asked: tuple[str, ...]) -> None:
        reached = {"g_a", "entropy"}  # by R
        if self.lambda_human:
            reached.add("g_s")
        if self._uses_machine_loss:
            reached |= {"g_s", "detector"}
            if self.task_view == "x_bar":
                reached.add("g_t")
        unreached = sorted(set(asked) - reached)
        if unreached:
            print_log(
                f"{', '.join(unreached)} not reached by the loss (lambda_human="
                f"{self.lambda_human}, lambda_machine={self.lambda_machine}, "
                f"task_view={self.task_view}): frozen",
                "current",
            )
        self.trainable = tuple(p for p in PARTS if p in asked and p in reached)
        for part, parameters in self.part_parameters().items():
            part = "entropy" if part == "quantiles" else part
            if part not in self.trainable:
                for parameter in parameters:
                    parameter.requires_grad_(False)

    @property
    def _uses_machine_loss(self) -> bool:
        return self.detector is not None and self.lambda_machine > 0

    @property
    def _stream_frozen(self) -> bool:
        return not {"g_a", "entropy"} & set(self.trainable)

    def train(self, mode: bool = True):
        super().train(mode)
        if mode:
            if self._stream_frozen:  # then it is the coded one: no noise
                self.codec.eval()
                for part in set(self.trainable) & {"g_s", "g_t"}:
                    self.codec.get_submodule(part).train()
            if self.detector is not None and "detector" not in self.trainable:
                # Not the whole: DETR-like losses look at `training`.
                for module in self.detector.modules():
                    if isinstance(module, (_BatchNorm, _DropoutNd, DropPath)):
                        module.eval()
                    elif isinstance(module, nn.MultiheadAttention):
                        module.training = False  # its dropout is a function
        return self

    def init_weights(self) -> None:
        """Loads what the config starts from.

        Raises:
            RuntimeError: If a checkpoint is of another model.
        """
        if self.detector is not None:
            if self._detector_checkpoint:
                load_detector(self.detector, self._detector_checkpoint)
            else:
                self.detector.init_weights()
                if self._uses_machine_loss and "detector" not in self.trainable:
                    print_log(
                        "the detector is frozen and has no model.detector_checkpoint",
                        "current",
                        logging.WARNING,
                    )
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

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
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
        self._check_detector(state_dict, f"{prefix}detector.")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _check_detector(self, state_dict: dict, prefix: str) -> None:
        """A codec trained alone may be tested with the config's detector."""
        if self.detector is None:
            return
        found = {k for k in state_dict if k.startswith(prefix)}
        if not found and self._detector_checkpoint:
            load_detector(self.detector, self._detector_checkpoint)
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

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict:
        """All terms, weighted; their sum is what is minimised.

        Args:
            batch_inputs: ``(N, 3, H, W)`` in [0, 1], padded by replication.
            batch_data_samples: With ``img_shape`` and annotations at original size.

        Returns:
            ``loss_rate`` (bpp, an estimate), ``loss_human``, the detector's losses
            times λ_m, ``loss_aux`` where the entropy part trains, and for the log
            ``psnr`` (dB, of x_hat).
        """
        if isinstance(self.codec, Anchor):
            raise TypeError(f"{type(self.codec).__name__} does not train: test it only")
        sizes = [tuple(s.img_shape[:2]) for s in batch_data_samples]
        with torch.no_grad() if self._stream_frozen else nullcontext():
            latent = self.codec.code_latent(self.codec.analyse(batch_inputs))
        bits = picture_bits(latent["likelihoods"], sizes)
        pixels = bits.new_tensor([h * w for h, w in sizes])
        losses = {"loss_rate": (bits / pixels).mean()}

        views = self.codec.synthesise(
            latent["y_hat"],
            batch_inputs.shape[-2:],
            ("human", "machine")
            if self._uses_machine_loss and self.task_view == "x_bar"
            else ("human",),
        )
        x_hat = views["x_hat"]
        errors = [
            (x_hat[i, :, :h, :w].float() - batch_inputs[i, :, :h, :w]).square().mean()
            for i, (h, w) in enumerate(sizes)
        ]
        mse = torch.stack(errors)
        losses["psnr"] = -10 * mse.detach().clamp(min=1e-10).log10().mean()
        if self.lambda_human:
            losses["loss_human"] = self.lambda_human * 255**2 * mse.mean()

        if self._uses_machine_loss:
            data = self._readable(views[self.task_view], batch_data_samples)
            for key, value in self.detector.loss(*data).items():
                losses[key] = _times(self.lambda_machine, value, "loss" in key)

        if "entropy" in self.trainable:
            losses["loss_aux"] = self.codec.aux_loss()
        return losses

    def _readable(
        self, views: Tensor, samples: SampleList, training: bool = True
    ) -> tuple:
        """Resized, letterboxed, normalised and padded, with gradients."""
        pairs = [
            self.view.for_training(
                view[:, : sample.img_shape[0], : sample.img_shape[1]], sample
            )
            for view, sample in zip(views, samples, strict=True)
        ]
        pictures, samples = (list(p) for p in zip(*pairs, strict=True))
        data = self.detector.data_preprocessor(
            {"inputs": pictures, "data_samples": samples}, training=training
        )
        return data["inputs"], data["data_samples"]

    @torch.no_grad()
    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, **kwargs
    ) -> SampleList:
        """Codes each picture alone, decodes it, and detects on the task view.

        Args:
            batch_inputs: ``(N, 3, H, W)`` in [0, 1].
            batch_data_samples: With ``img_shape``.

        Returns:
            The same samples, with ``bits`` (of real bytes unless
            ``coding="forward"``), ``x_hat`` and ``x_bar`` (``(3, H, W)`` uint8 RGB)
            and, where there is a detector, its ``pred_*`` at original size.
        """
        for x, sample in zip(batch_inputs, batch_data_samples, strict=True):
            height, width = sample.img_shape[:2]
            x = x[None, :, :height, :width]
            if self.coding == "bytes":
                coded = self.codec.compress(x)
                bits = 8 * sum(len(s) for part in coded["strings"] for s in part)
                views = self.codec.decompress(**coded)
            else:
                out = self.codec(x)
                bits = float(picture_bits(out["likelihoods"], [(height, width)])[0])
                views = {k: out[k].clamp(0, 1) for k in ("x_hat", "x_bar")}
            sample.set_metainfo({"bits": bits})
            for name, view in views.items():
                sample.set_field((view[0] * 255).round().byte(), name)
            if self.detector is not None:
                data = self.view.for_testing(views[self.task_view][0], sample)
                data = self.detector.data_preprocessor(
                    {k: [v] for k, v in data.items()}, training=False
                )
                (found,) = self.detector.predict(
                    data["inputs"], data["data_samples"], **kwargs
                )
                for key, value in found.items():
                    if key.startswith("pred_"):
                        sample.set_field(value, key)
        return batch_data_samples

    def extract_feat(self, batch_inputs: Tensor):
        """The detector's features of the task view of ``(N, 3, H, W)`` pictures."""
        views = self.codec(batch_inputs)[self.task_view]
        size = {"img_shape": tuple(batch_inputs.shape[-2:])}
        samples = [DetDataSample(metainfo=size) for _ in views]
        readable, _ = self._readable(views, samples, training=False)
        return self.detector.extract_feat(readable)

    def _forward(self, batch_inputs: Tensor, batch_data_samples=None):
        """The codec's forward: x_hat, x_bar, likelihoods."""
        return self.codec(batch_inputs)


def _times(factor: float, value, is_loss: bool):
    if not is_loss:
        return value
    if isinstance(value, (list, tuple)):
        return [factor * v for v in value]
    return factor * value
