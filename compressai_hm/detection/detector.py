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
from mmengine.dist import is_distributed
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ..codecs import HumanMachineMixin, picture_bits, refine
from ..codecs.readers import check_name
from .build import (
    build_codec,
    detector_config,
    load_detector,
    mismatches,
    read_latent,
)
from .feature_error import inside_boxes, relative_error
from .view import DetectorView, for_latent

PARTS = ("g_a", "g_s", "entropy", "g_t", "latent_backbone", "detector")


@MODELS.register_module()
class HumanMachineDetector(BaseDetector):
    """Codes a picture, decodes it, and lets a detector read it.

    ::

        x ─► codec ─┬─► x_hat (humans)
                    ├─► x_bar (machines) ─► resize, letterbox ─► detector
                    └─► y_hat ─► latent backbone ─► the detector's neck and heads

    Args:
        codec: ``type``, a name of CompressAI's zoo or registry, and its arguments
            (``quality``, ``metric``, ``pretrained``, or ``N``, ``M``, ...). With
            ``checkpoint`` it starts from that file, URL or ``compressai_hm://`` name.
            For testing also a classical codec: ``dict(type="hevc", quality=32)``.
        detector: An MMDetection model config; or a whole config, or the name of one
            (such as "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"). None trains
            the codec alone. Defaults to None.
        detector_checkpoint: Weights of the detector. Defaults to None.
        lambda_human: λ_h, CompressAI's λ. Defaults to 0.0067.
        lambda_machine: λ_m. 0 leaves the detector out of training. Defaults to 1.0.
        machine_losses: What D_m is the weighted sum of. ``labels``: the detector's own
            losses. ``features``: the squared error of the features after its neck
            against those of the uncompressed picture, over their mean square; needs no
            labels. ``objects``: the same, inside the annotated boxes alone, so that
            bits go to what is to be found. Defaults to ``dict(labels=1.0)``.
        task_view: What the detector reads, "x_bar" or "x_hat"; "y_hat" replaces its
            backbone by a :class:`LatentBackbone`, for pictures at original size.
            Defaults to "x_bar".
        latent_backbone: With "y_hat", its ``width`` and ``depth``. Levels and channels
            are those of the replaced backbone. Defaults to None.
        resize: :class:`DetectorView`'s arguments. Defaults to what the test pipeline
            of a whole config does; to MMDetection's (1333, 800) for a model config.
        trainable: The parts that train, among g_a, g_s, entropy (h_a, h_s, context,
            bottleneck), g_t, latent_backbone and detector (its neck and heads, if the
            backbone was replaced). Defaults to all but the detector.
        reader: With a stream that is frozen, the name of the reader that is trained:
            ExportCodecHook writes it. Defaults to None.
        data_preprocessor: Defaults to HumanMachineDataPreprocessor.
        backbone: Stays empty; ``mmdet.apis.init_detector`` looks for it in configs.
        mixed_quantisation: Train g_s and g_t on rounded latents, see
            :class:`HumanMachineMixin`. For codecs with a ``gaussian_conditional`` of
            their own; ELIC's and the checkerboard's latent codecs quantise by
            themselves. Defaults to False.
        coding: "bytes" codes and decodes real bitstreams at evaluation; "forward"
            takes the codec's eval forward and its likelihoods. Defaults to "bytes".

    Raises:
        TypeError: If ``codec`` is missing.
        ValueError: For an unknown name, quality, part or view, a negative λ, or parts
            that contradict each other.
    """

    def __init__(
        self,
        codec: dict | None = None,
        detector: dict | str | None = None,
        detector_checkpoint: str | None = None,
        lambda_human: float = 0.0067,
        lambda_machine: float = 1.0,
        machine_losses: dict[str, float] | None = None,
        task_view: str = "x_bar",
        latent_backbone: dict | None = None,
        resize: dict | None = None,
        trainable: tuple[str, ...] | None = None,
        reader: str | None = None,
        mixed_quantisation: bool = False,
        coding: str = "bytes",
        data_preprocessor: dict | None = None,
        backbone: dict | None = None,
    ):
        super().__init__(data_preprocessor or dict(type="HumanMachineDataPreprocessor"))
        self.machine_losses = dict(labels=1.0)
        if machine_losses is not None:
            self.machine_losses = dict(machine_losses)
        for name, value in (
            ("lambda_human", lambda_human),
            ("lambda_machine", lambda_machine),
            *((f"machine_losses.{k}", v) for k, v in self.machine_losses.items()),
        ):
            if not (isinstance(value, (int, float)) and 0 <= value < float("inf")):
                raise ValueError(f"model.{name} must be 0 or more, got {value}")
        if isinstance(trainable, str):
            raise ValueError(f"model.trainable must be a list, got {trainable!r}")
        for name, value, known in (
            ("task_view", {task_view}, {"x_bar", "x_hat", "y_hat"}),
            ("coding", {coding}, {"bytes", "forward"}),
            ("trainable", set(trainable or ()), set(PARTS)),
            (
                "machine_losses",
                set(self.machine_losses),
                {"labels", "features", "objects"},
            ),
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
        if mixed_quantisation:
            if not hasattr(self.codec, "gaussian_conditional"):
                raise ValueError(
                    f"model.mixed_quantisation: {type(self.codec).__name__} has no "
                    "gaussian_conditional; leave it out"
                )
            self.codec.mixed_quantisation = True
        self.detector = None
        self.detector_classes: tuple[str, ...] | None = None
        """That its checkpoint names; CheckDataHook compares the data's."""
        self._detector_checkpoint = detector_checkpoint
        if detector is not None:
            detector, resize = detector_config(detector, resize)
            if self._reads_latent:
                if not self.codec.learned:
                    raise ValueError(
                        f"model.codec {type(self.codec).__name__} has no latent for "
                        'model.task_view="y_hat"'
                    )
                detector = read_latent(detector, self.codec, latent_backbone or {})
            self.detector = MODELS.build(detector)
            if not (is_distributed() and torch.cuda.is_available()):
                # It has nothing to be in step with, and works on no CPU.
                self.detector = revert_sync_batchnorm(self.detector)
            self.view = DetectorView(**resize)
        self._set_trainable(trainable)
        self.reader = reader
        self._check_parts(latent_backbone)

    @property
    def _reads_latent(self) -> bool:
        return self.task_view == "y_hat"

    def _check_parts(self, latent_backbone: dict | None) -> None:
        if self._uses("features") or self._uses("objects"):
            if self._reads_latent:
                raise ValueError(
                    "model.machine_losses: features and objects compare the detector's "
                    'features of two pictures; with task_view="y_hat" there is one'
                )
            if "detector" in self.trainable:
                raise ValueError(
                    "model.machine_losses: features and objects need a frozen "
                    "detector: leave detector out of model.trainable"
                )
        if latent_backbone is not None and not self._reads_latent:
            raise ValueError('model.latent_backbone needs model.task_view="y_hat"')
        if self.reader is not None:
            check_name(self.reader)
            part = "latent_backbone" if self._reads_latent else "g_t"
            moved = {"g_a", "g_s", "entropy"} & set(self.trainable)
            empty = not self.part_parameters()[part]
            if moved or empty or part not in self.trainable:
                raise ValueError(
                    f"model.reader={self.reader!r} is {part} trained on a frozen "
                    f"stream; model.trainable={list(self.trainable)}"
                    + (f", and there is no {part}" if empty else "")
                )

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
            for name, parameter in self.detector.named_parameters():
                latent = self._reads_latent and name.startswith("backbone.")
                parts["latent_backbone" if latent else "detector"].append(parameter)
        return parts

    def _set_trainable(self, asked: tuple[str, ...] | None) -> None:
        reached = {"g_a", "entropy"}  # by R
        if self.lambda_human:
            reached.add("g_s")
        if self._uses_machine_loss:
            reached.add("detector")
            if self._reads_latent:
                reached.add("latent_backbone")
            else:
                reached.add("g_s")
            if self.task_view == "x_bar":
                reached.add("g_t")
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

    @property
    def _uses_machine_loss(self) -> bool:
        return (
            self.detector is not None
            and self.lambda_machine > 0
            and any(self.machine_losses.values())
        )

    def _uses(self, loss: str) -> bool:
        return self._uses_machine_loss and bool(self.machine_losses.get(loss))

    @property
    def stream_frozen(self) -> bool:
        """Whether training leaves the codec's streams as they are."""
        return not {"g_a", "entropy"} & set(self.trainable)

    def train(self, mode: bool = True):
        super().train(mode)
        if mode:
            if self.stream_frozen:  # then it is the coded one: no noise
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
            if self._reads_latent or not self._detector_checkpoint:
                self.detector.init_weights()
            if self._detector_checkpoint:
                self._load_detector()
            else:
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

    def _load_detector(self) -> None:
        own = "backbone." if self._reads_latent else None
        self.detector_classes = load_detector(
            self.detector, self._detector_checkpoint, own
        )

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
        if not found and self._reads_latent:
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
        if not self.codec.learned:
            raise TypeError(f"{type(self.codec).__name__} does not train: test it only")
        with torch.no_grad() if self.stream_frozen else nullcontext():
            latent = self.codec.code_latent(self.codec.analyse(batch_inputs))
        losses = self._losses(
            latent, batch_inputs, batch_data_samples, self.machine_losses
        )
        if "entropy" in self.trainable:
            losses["loss_aux"] = self.codec.aux_loss()
        return losses

    def _losses(
        self,
        latent: dict,
        x: Tensor,
        samples: SampleList,
        machine_losses: dict,
        codec: HumanMachineMixin | None = None,
        training: bool = True,
    ) -> dict:
        """All terms of what the latent decodes to, weighted."""
        sizes = [tuple(s.img_shape[:2]) for s in samples]
        bits = picture_bits(latent["likelihoods"], sizes)
        pixels = bits.new_tensor([h * w for h, w in sizes])
        losses = {"loss_rate": (bits / pixels).mean()}

        wanted = []
        if self.lambda_human or not self._reads_latent:
            wanted.append("human")
        if self._uses_machine_loss and self.task_view == "x_bar":
            wanted.append("machine")
        codec = codec or self.codec
        views = codec.synthesise(latent["y_hat"], x.shape[-2:], tuple(wanted))
        if "x_hat" in views:
            errors = [
                (views["x_hat"][i, :, :h, :w].float() - x[i, :, :h, :w]).square().mean()
                for i, (h, w) in enumerate(sizes)
            ]
            mse = torch.stack(errors)
            losses["psnr"] = -10 * mse.detach().clamp(min=1e-10).log10().mean()
            if self.lambda_human:
                losses["loss_human"] = self.lambda_human * 255**2 * mse.mean()

        if self._uses_machine_loss:
            view = {**views, "y_hat": latent["y_hat"]}[self.task_view]
            for key, value in self._machine_losses(
                view, x, samples, machine_losses, training
            ).items():
                losses[key] = _times(self.lambda_machine, value, "loss" in key)
        return losses

    def refine(
        self, x: Tensor, steps: int, codec: HumanMachineMixin | None = None
    ) -> Tensor:
        """Encoder-side adaptation of one picture: see :func:`codecs.refine`.

        The loss is the config's, with the error of the detector's features in place of
        its labels: weighed by machine_losses.features, or by 1 where there is none.

        Args:
            x: RGB in [0, 1], ``(1, 3, H, W)``.
            steps: Gradient steps.
            codec: Codes the picture instead of the model's own.

        Returns:
            y, ``(1, M, h, w)``.

        Raises:
            ValueError: With ``task_view="y_hat"``, whose features have no reference.
        """
        if self._uses_machine_loss and self._reads_latent:
            raise ValueError(
                'refinement needs features of pictures; task_view is "y_hat"'
            )
        weight = self.machine_losses.get("features") or 1.0
        sample = DetDataSample(metainfo={"img_shape": tuple(x.shape[-2:])})
        sample.gt_instances = InstanceData(bboxes=x.new_zeros(0, 4))

        def loss(latent: dict) -> Tensor:
            losses = self._losses(
                latent, x, [sample], dict(features=weight), codec, training=False
            )
            return sum(value for key, value in losses.items() if "loss" in key)

        codec = codec or self.codec
        return refine(codec, x, loss, steps)

    def _machine_losses(
        self,
        view: Tensor,
        x: Tensor,
        samples: SampleList,
        weights: dict[str, float],
        training: bool = True,
    ) -> dict:
        """D_m's terms, weighted; random augmentations are for training."""
        losses = {}
        if weights.get("features") or weights.get("objects"):
            # In one batch: random augmentations act on both alike.
            both = torch.cat((view, x))
            inputs, doubled = self._readable(both, [*samples, *samples], training)
            inputs, reference = inputs.split(len(samples))
            data = inputs, doubled[: len(samples)]
            own = self.detector.extract_feat(inputs)
            with torch.no_grad():
                targets = self.detector.extract_feat(reference)
            if weight := weights.get("features"):
                losses["loss_features"] = weight * relative_error(own, targets)
            if weight := weights.get("objects"):
                inside = inside_boxes(data[1], inputs.shape[-2:]).to(inputs)
                losses["loss_objects"] = weight * relative_error(own, targets, inside)
        elif self._reads_latent:
            data = view, for_latent(samples, view)
        else:
            data = self._readable(view, samples)
        weight = weights.get("labels")
        if weight:
            for key, value in self.detector.loss(*data).items():
                losses[key] = _times(weight, value, "loss" in key)
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
            views = self._coded(x, sample)
            for name in ("x_hat", "x_bar"):
                if name in views:
                    picture = (views[name][0] * 255).round().byte()
                    sample.set_field(picture, name)
            if self.detector is not None:
                (found,) = self.detector.predict(
                    *self._testable(views[self.task_view], sample), **kwargs
                )
                for key, value in found.items():
                    if key.startswith("pred_"):
                        sample.set_field(value, key)
        return batch_data_samples

    def _coded(self, x: Tensor, sample: DetDataSample) -> dict[str, Tensor]:
        """y_hat and the views, and the sample is told its bits."""
        size = tuple(x.shape[-2:])
        if self.coding == "bytes" or not self.codec.learned:
            coded = self.codec.compress(x)
            bits = _bits(coded["strings"])
            if self._reads_latent:
                y_hat, _ = self.codec.decode_latent(coded["strings"], size)
                views = {"y_hat": y_hat, **self.codec.synthesise(y_hat, size)}
            else:
                views = self.codec.decompress(**coded)
        else:
            latent = self.codec.code_latent(self.codec.analyse(x))
            bits = float(picture_bits(latent["likelihoods"], [size])[0])
            y_hat = latent["y_hat"]
            views = {"y_hat": y_hat, **self.codec.synthesise(y_hat, size)}
        sample.set_metainfo({"bits": bits})
        for name in set(views) & {"x_hat", "x_bar"}:
            views[name] = views[name].clamp(0, 1)
        return views

    def _testable(self, view: Tensor, sample: DetDataSample) -> tuple:
        """What the detector's predict takes, of one picture."""
        if self._reads_latent:
            return view, for_latent([sample], view, training=False)
        data = self.view.for_testing(view[0], sample)
        data = self.detector.data_preprocessor(
            {k: [v] for k, v in data.items()}, training=False
        )
        return data["inputs"], data["data_samples"]

    def extract_feat(self, batch_inputs: Tensor):
        """The detector's features of the task view of ``(N, 3, H, W)`` pictures."""
        if self._reads_latent:
            latent = self.codec.code_latent(self.codec.analyse(batch_inputs))
            return self.detector.extract_feat(latent["y_hat"])
        views = self.codec(batch_inputs)[self.task_view]
        size = {"img_shape": tuple(batch_inputs.shape[-2:])}
        samples = [DetDataSample(metainfo=size) for _ in views]
        readable, _ = self._readable(views, samples, training=False)
        return self.detector.extract_feat(readable)

    def _forward(self, batch_inputs: Tensor, batch_data_samples=None):
        """The codec's forward: x_hat, x_bar, likelihoods."""
        return self.codec(batch_inputs)


def _bits(strings: list[list[bytes]]) -> int:
    return 8 * sum(len(string) for part in strings for string in part)


def _times(factor: float, value, is_loss: bool):
    if not is_loss:
        return value
    if isinstance(value, (list, tuple)):
        return [factor * v for v in value]
    return factor * value
