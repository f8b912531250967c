"""A codec in front of any MMDetection detector.

L = R(y_hat, z_hat) + λ_h D_h(x, x_hat) + λ_m D_m(x, x_bar)

with R in bits per original pixel, D_h the MSE times 255^2 and D_m the losses on the
decoded view: the detector's own, unless the config names others. In training for many
quantization steps Δ, both D are weighted by 1/Δ² at each place, so that each λ is that
of a step of 1.
"""

from contextlib import nullcontext
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.dist import is_distributed
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from ...distortion import mse_to_psnr
from ...encoder.refinement import refine
from ...entropy import QuantSteps, find_family, step_values
from ...geometry import Y_STRIDE
from ...models.human_machine import QUANTIZERS, HumanMachineMixin, picture_bits
from ..coding import CODINGS
from ..configs import build_codec, detector_config
from ..losses import MachineLosses
from ..losses.machine_losses import scale_term
from ..reading import Decoded, Reading
from ..regions import DetectorRegions
from ..view import DetectorView
from .preprocessor import HumanMachineDataPreprocessor
from .random_steps import RandomSteps
from .trainable import PARTS, TrainablePartsMixin
from .weights import WeightsMixin


@MODELS.register_module()
class HumanMachineDetector(TrainablePartsMixin, WeightsMixin, BaseDetector):
    """Codes a picture, decodes it, and runs a detector on a decoded view.

    ::

        x ─► codec ─┬─► x_hat (humans)
                    └─► x_bar (machines) ─► resize, letterbox ─► detector

    A :class:`LatentHumanMachineDetector` reads y_hat instead.

    Args:
        codec: ``type``, a name of CompressAI's zoo or registry, and its arguments
            (``quality``, ``metric``, ``pretrained``, or ``N``, ``M``, ...).
            ``checkpoint`` names its starting weights, a file, URL or
            ``compressai_hm://`` name. For testing it may be a classical codec:
            ``dict(type="hevc", quality=32)``.
        detector: An MMDetection model config, a whole config, or the name of one (such
            as "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"). None trains the
            codec alone, unless losses have detectors. Defaults to None.
        detector_checkpoint: Weights of the detector. Defaults to None.
        lambda_human: λ_h, CompressAI's λ. Defaults to 0.0067.
        lambda_machine: λ_m. 0 leaves the detector out of training. Defaults to 1.0.
        machine_losses: The losses whose sum is D_m, configs of :class:`MachineLoss`:
            ``[dict(type="DetectorLoss", weight=1.0), dict(type="FeatureLoss", ...)]``.
            A short form gives weights of losses of the model's detector: ``labels``,
            the detector's own losses; ``features``, the squared error of the features
            after its neck against those of the uncompressed picture, over their mean
            square, which needs no labels; ``objects``, the same error inside the
            annotated boxes only, so that bits go to objects. Defaults to
            ``dict(labels=1.0)``.
        task_view: The view that the detector reads, "x_bar" or "x_hat". Defaults to
            "x_bar".
        resize: Arguments of :class:`DetectorView`; ``dict(scale=None)`` keeps the size
            of decoded pictures. Defaults to the resize of the test pipeline for a whole
            config, and to MMDetection's (1333, 800) for a model config.
        trainable: The parts that train, among g_a, g_s, entropy (h_a, h_s, context,
            bottleneck), g_t, latent_backbone and detector (without what a
            latent backbone replaces). Defaults to all but the detector.
        reader: The name of the reader (g_t or latent backbone) that is trained on a
            frozen stream. ExportCodecHook writes it. Defaults to None.
        quantizer: The model of quantization in training, "noise" or "ste", see
            :class:`HumanMachineMixin`. Defaults to the codec's.
        steps: Trains one model for many rates: ``dict(low=0.5, high=4, regions=0.3)``,
            arguments of :class:`RandomSteps`. Each training picture is coded with a
            random step Δ, and its distortion and machine losses are weighted by 1/Δ²
            against its bits. Defaults to None, a step of 1.
        step: The quantization step at evaluation, 1/8 to 16. Defaults to the codec's,
            which is 1 except for a zoo entry with one set of weights for every quality.
        detector_regions: Finer steps at evaluation where detectors find objects in the
            uncompressed picture: ``dict(detectors=[dict(config=..., checkpoint=...)],
            gain=1.41)``, arguments of :class:`DetectorRegions`. Defaults to None.
        coding: How pictures are coded at evaluation: "bytes" writes and decodes real
            bitstreams; "forward" uses the codec's eval forward and its likelihoods.
            Defaults to "bytes".
        data_preprocessor: Defaults to HumanMachineDataPreprocessor.
        backbone: Must be empty; ``mmdet.apis.init_detector`` looks for it in configs.

    Raises:
        TypeError: If ``codec`` is missing.
        ValueError: For an unknown name, quality, part or view, a negative λ, or parts
            that contradict each other.
    """

    task_views: tuple[str, ...] = ("x_bar", "x_hat")
    """The views that the detector can read; the first is the default."""

    def __init__(
        self,
        codec: dict | None = None,
        detector: dict | str | None = None,
        detector_checkpoint: str | None = None,
        lambda_human: float = 0.0067,
        lambda_machine: float = 1.0,
        machine_losses: dict | list[dict] | None = None,
        task_view: str | None = None,
        resize: dict | None = None,
        trainable: tuple[str, ...] | None = None,
        reader: str | None = None,
        quantizer: str | None = None,
        steps: dict | None = None,
        step: float | None = None,
        detector_regions: dict | None = None,
        coding: str = "bytes",
        data_preprocessor: dict | None = None,
        backbone: dict | None = None,
    ):
        super().__init__(data_preprocessor or dict(type="HumanMachineDataPreprocessor"))
        task_view = task_view or self.task_views[0]
        _check_numbers(lambda_human=lambda_human, lambda_machine=lambda_machine)
        if task_view == "y_hat" and task_view not in self.task_views:
            raise ValueError(
                'model.task_view="y_hat" needs model.type="LatentHumanMachineDetector"'
            )
        _check_words("task_view", [task_view], self.task_views)
        _check_words("coding", [coding], CODINGS)
        _check_words("trainable", trainable or (), PARTS)
        if backbone:
            raise ValueError(
                "model.backbone must stay empty: the detector's is in model.detector"
            )
        self.lambda_human = lambda_human
        self.lambda_machine = lambda_machine
        self.task_view = task_view
        self.coding = coding
        self.reader = reader

        self.codec, self._codec_weights = build_codec(codec)
        if quantizer is not None:
            _check_words("quantizer", [quantizer], QUANTIZERS)
            self._set_quantizer(quantizer)
        self.steps = None if steps is None else RandomSteps(**steps)
        codec_step = self.codec.step if self.codec.learned else 1.0
        self.step = codec_step if step is None else step
        QuantSteps.nearest(self.step, (1, 1))  # raises if it is out of its range
        self.detector_regions = (
            None if detector_regions is None else DetectorRegions(**detector_regions)
        )
        if not self.codec.learned and (self.step != 1 or steps or detector_regions):
            raise ValueError(
                "model.step, steps and detector_regions are of HM codecs, not of "
                f"{type(self.codec).__name__}"
            )
        self.detector = None
        self._detector_checkpoint = detector_checkpoint
        if detector is not None:
            cfg, resize = detector_config(detector, resize)
            self.view = DetectorView(**resize)
            self.detector = MODELS.build(self._adapt_detector(cfg))
            if not (is_distributed() and torch.cuda.is_available()):
                # SyncBN is needed only between processes, and does not run on a CPU.
                self.detector = revert_sync_batchnorm(self.detector)
        self.machine_losses = MachineLosses(machine_losses, detector is not None)
        self._set_trainable(trainable)
        self._check_losses()
        self._check_reader(reader)

    def _set_quantizer(self, quantizer: str) -> None:
        family = find_family(self.codec) if self.codec.learned else None
        alone = getattr(family, "trains_on_symbols", False)
        able = family and (alone or hasattr(self.codec, "gaussian_conditional"))
        if not able or (alone and quantizer != "ste"):
            raise ValueError(
                f"model.quantizer={quantizer!r}: {type(self.codec).__name__} trains "
                f"with {'ste' if alone else 'noise'!r} only; leave it out"
            )
        self.codec.quantizer = quantizer

    def _adapt_detector(self, detector: dict) -> dict:
        """Returns the detector's config as this class builds it."""
        return detector

    def _check_losses(self) -> None:
        if not self._uses_machine_loss or "detector" not in self.trainable:
            return
        for loss in self.machine_losses.find_losses(None):
            if loss.compares:
                raise ValueError(
                    f"model.machine_losses: {type(loss).__name__} compares what the "
                    "detector sees in two pictures. It (and so features and objects) "
                    "need a frozen detector: leave detector out of model.trainable"
                )

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict:
        """Computes all loss terms, weighted; their sum is minimized.

        Args:
            batch_inputs: ``(N, 3, H, W)`` in [0, 1], padded by replication.
            batch_data_samples: Samples with ``img_shape`` and annotations, at original
                size.

        Returns:
            ``loss_rate`` (estimated bpp, weighted if ``steps`` weights pictures),
            ``loss_human``, the machine losses times λ_m, ``loss_aux`` if the entropy
            part trains, and for the log ``psnr`` (dB, of x_hat).
        """
        if not self.codec.learned:
            raise TypeError(f"{type(self.codec).__name__} does not train: test it only")
        with torch.no_grad() if self.stream_frozen else nullcontext():
            latent, steps = self._code(batch_inputs, batch_data_samples)
        losses = self._losses(
            latent, batch_inputs, batch_data_samples, self.machine_losses, steps=steps
        )
        if "entropy" in self.trainable:
            losses["loss_aux"] = self.codec.aux_loss()
        return losses

    def _code(
        self, x: Tensor, samples: SampleList
    ) -> tuple[dict, list[QuantSteps] | None]:
        """Returns the latents of a batch, with their bits, and their steps."""
        checked = isinstance(self.data_preprocessor, HumanMachineDataPreprocessor)
        y, steps = self.codec.analyze(x, checked=checked), None
        if self.steps is not None:
            steps = self.steps.draw(len(y), y.shape[-2:])
        latent = self.codec.code_latent(y, steps)
        latent["bits"] = picture_bits(latent["likelihoods"], _list_sizes(samples))
        return latent, steps

    def _losses(
        self,
        latent: dict,
        x: Tensor,
        samples: SampleList,
        machine_losses: MachineLosses,
        codec: HumanMachineMixin | None = None,
        training: bool = True,
        steps: list[QuantSteps] | None = None,
    ) -> dict:
        """Computes all weighted terms of the views that a latent decodes to."""
        sizes = _list_sizes(samples)
        bits = latent["bits"]
        pixels = torch.stack([bits.new_full((), h * w) for h, w in sizes])
        counts = torch.ones_like(bits)
        if steps is not None:
            counts = self.steps.weights(steps).to(bits)
        losses = {"loss_rate": (bits / pixels * counts).mean()}

        codec = codec or self.codec
        views = codec.synthesize(latent["y_hat"], x.shape[-2:], self._choose_views())
        weights = None
        if steps is not None:
            weights = _compute_weights(steps, counts, latent["y_hat"], x)
        if "x_hat" in views:
            errors = (views["x_hat"].float() - x).square()
            mse = _average_pictures(errors, sizes)
            losses["psnr"] = mse_to_psnr(mse.detach().clamp(min=1e-10), peak=1).mean()
            if self.lambda_human:
                if weights is not None:
                    mse = _average_pictures(errors * weights["x_hat"], sizes)
                losses["loss_human"] = self.lambda_human * 255**2 * mse.mean()

        if self._uses_machine_loss:
            views = {**views, "y_hat": latent["y_hat"]}
            if weights is not None:
                views = {k: _weight_gradients(v, weights[k]) for k, v in views.items()}
            decoded = Decoded(x, views, views[self.task_view], samples, training)
            for key, value in machine_losses.terms(decoded, self).items():
                losses[key] = scale_term(self.lambda_machine, key, value)
        return losses

    def _choose_views(self) -> tuple[str, ...]:
        machine = self._uses_machine_loss and self.task_view == "x_bar"
        return ("human", "machine") if machine else ("human",)

    def read(self, decoded: Decoded, compares: bool) -> Reading:
        """Reads a batch in training.

        Args:
            decoded: The batch.
            compares: Whether the uncompressed pictures are read as well.

        Returns:
            The batch as the model's detector reads it.
        """
        resize = None if self.detector is None else self.view
        return Reading(
            **vars(decoded), detector=self.detector, resize=resize, compares=compares
        )

    def refine(
        self, x: Tensor, iterations: int, codec: HumanMachineMixin | None = None
    ) -> Tensor:
        """Adapts the latent of one picture at the encoder: see :func:`refine`.

        The loss is the config's, except that a FeatureLoss replaces the losses that
        need annotations. Its weight is 1, unless the config has a FeatureLoss with
        another weight.

        Args:
            x: RGB in [0, 1], ``(1, 3, H, W)``.
            iterations: Number of Adam's iterations.
            codec: Codes the picture in place of the model's own codec. Defaults to
                None.

        Returns:
            y, ``(1, M, h, w)``.

        Raises:
            ValueError: If the detector reads y_hat, because features have no reference;
                or if ``step`` or ``detector_regions`` ask for another step than 1,
                because the config's weights of losses do not apply to it.
        """
        if self.detector_regions is not None or self.step != 1:
            raise ValueError("refine is for model.step=1 and no model.detector_regions")
        sample = DetDataSample(metainfo={"img_shape": tuple(x.shape[-2:])})
        sample.gt_instances = InstanceData(bboxes=x.new_zeros(0, 4))
        machine_losses = self.machine_losses.without_annotations()

        def loss(latent: dict) -> Tensor:
            latent["bits"] = picture_bits(latent["likelihoods"], [sample.img_shape])
            losses = self._losses(
                latent, x, [sample], machine_losses, codec, training=False
            )
            return sum(value for key, value in losses.items() if "loss" in key)

        codec = codec or self.codec
        return refine(codec, x, loss, iterations, step=1.0)

    @torch.no_grad()
    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, **kwargs: Any
    ) -> SampleList:
        """Codes each picture alone, decodes it, and detects on the task view.

        Args:
            batch_inputs: ``(N, 3, H, W)`` in [0, 1].
            batch_data_samples: Samples with ``img_shape``.
            **kwargs: Arguments of the detector's ``predict``.

        Returns:
            The same samples, with ``bits`` (of real bytes unless ``coding="forward"``),
            ``steps``, ``x_hat`` and ``x_bar`` (``(3, H, W)`` uint8 RGB) and, if there
            is a detector, its ``pred_*`` at original size.
        """
        code = CODINGS[self.coding if self.codec.learned else "bytes"]
        for x, sample in zip(batch_inputs, batch_data_samples, strict=True):
            height, width = sample.img_shape[:2]
            x = x[None, :, :height, :width]
            steps = self.choose_steps(x)
            views, bits = code(self.codec, x, steps, latent=self.task_view == "y_hat")
            sample.set_metainfo({"bits": bits, "steps": steps})
            for name in ("x_hat", "x_bar"):
                if name in views:
                    picture = (views[name][0] * 255).round().byte()
                    sample.set_field(picture, name)
            if self.detector is not None:
                (result,) = self.detector.predict(
                    *self.prepare_for_detector(views[self.task_view], sample), **kwargs
                )
                for key, value in result.items():
                    if key.startswith("pred_"):
                        sample.set_field(value, key)
        return batch_data_samples

    def choose_steps(self, x: Tensor) -> QuantSteps:
        """Returns the quantization steps of a picture at evaluation.

        Args:
            x: One picture, RGB in [0, 1], ``(1, 3, H, W)``.
        """
        step = (
            self.step
            if self.detector_regions is None
            else self.detector_regions.step_map(x, self.step, self.codec)
        )
        return QuantSteps.nearest(step, tuple(x.shape[-2:]))

    def prepare_for_detector(
        self, view: Tensor, sample: DetDataSample
    ) -> tuple[Tensor, SampleList]:
        """Returns one picture's inputs of the detector's ``predict``.

        Args:
            view: The task view, ``(1, C, H, W)`` in [0, 1].
            sample: The picture's sample with ``img_shape``.

        Returns:
            The inputs, and the samples that go with them.
        """
        data = self.view.prepare_testing(view[0], sample)
        data = self.detector.data_preprocessor(
            {k: [v] for k, v in data.items()}, training=False
        )
        return data["inputs"], data["data_samples"]

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the detector's features of the task view, ``(N, C, h, w)`` a level.

        Args:
            batch_inputs: Pictures, ``(N, 3, H, W)`` in [0, 1].
        """
        views = self.codec(batch_inputs)[self.task_view]
        size = {"img_shape": tuple(batch_inputs.shape[-2:])}
        samples = [DetDataSample(metainfo=size) for _ in views]
        inputs, _ = self.view.batch(self.detector, views, samples, training=False)
        return self.detector.extract_feat(inputs)

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None
    ) -> dict:
        """Returns the codec's forward: x_hat, x_bar, likelihoods."""
        return self.codec(batch_inputs)


def _list_sizes(samples: SampleList) -> list[tuple[int, int]]:
    return [tuple(sample.img_shape[:2]) for sample in samples]


def _average_pictures(errors: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    """Returns means over each picture without its padding, ``(N,)``."""
    means = [errors[i, :, :h, :w].mean() for i, (h, w) in enumerate(sizes)]
    return torch.stack(means)


def _compute_weights(
    steps: list[QuantSteps], counts: Tensor, y_hat: Tensor, x: Tensor
) -> dict[str, Tensor]:
    """Returns 1/Δ² at each place of each view, times the picture's weight.

    These are the weights of errors against bits.
    """
    height, width = x.shape[-2:]
    places = step_values(steps, y_hat.shape[-2:]).pow(-2).to(y_hat)
    places = places * counts[:, None, None, None]
    pixels = F.interpolate(places, scale_factor=Y_STRIDE, mode="nearest")
    pixels = pixels[..., :height, :width]
    return {"y_hat": places, "x_hat": pixels, "x_bar": pixels}


def _weight_gradients(view: Tensor, weight: Tensor) -> Tensor:
    """Keeps the view's values, and multiplies its gradients by a weight at each place.

    Any loss on it is then weighted by place for the codec, but not for the detector.
    """
    fixed = view.detach()
    return fixed + weight * (view - fixed)


def _check_numbers(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (isinstance(value, (int, float)) and 0 <= value < float("inf")):
            raise ValueError(f"model.{name} must be 0 or more, got {value}")


def _check_words(name: str, words: Any, known: Any) -> None:
    if isinstance(words, str):
        raise ValueError(f"model.{name} must be a list, got {words!r}")
    if set(words) - set(known):
        raise ValueError(
            f"model.{name} knows {sorted(known)}, got {sorted(set(words) - set(known))}"
        )
