"""The codecs of a sweep's config."""

import importlib.metadata
import inspect
import json
from functools import lru_cache
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor

from ... import __version__
from ...bitstream.coding import FileCodec
from ...bitstream.format import METRICS, VERSION
from ...bitstream.picture_codec import PictureCodec
from ...classical import CLASSICAL, find_classical
from ...detection import DetectorRegions
from ...detection.build import build_model
from ...encoder.refinement import refine
from ...entropy import QuantSteps
from ...models.entries import ENTRIES
from ...models.human_machine import HumanMachineMixin
from ...zoo import cfgs, is_hm, load_checkpoint, load_model
from ...zoo.released import RELEASED, SCHEME, local_path, weights_file
from .config_checks import check_keys
from .digests import file_digest, value_digest


class Uncompressed:
    """A picture codec without compression: its file is the samples."""

    learned = False

    def encode(self, x: Tensor) -> bytes:
        """Returns the samples of ``x``, RGB in [0, 1], ``(1, 3, H, W)``, in 8 bits."""
        return (x[0] * 255).round().byte().numpy().tobytes()

    def decode(
        self, data: bytes, size: tuple[int, int], views: tuple[str, ...] = ()
    ) -> dict[str, Tensor]:
        """Returns the picture as ``x_hat``, RGB in [0, 1], ``(1, 3, H, W)``.

        Args:
            data: The file.
            size: (H, W) of the picture.
            views: Without effect.
        """
        flat = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return {"x_hat": flat.view(1, 3, *size).float() / 255}

    def overhead(self, data: bytes) -> int:
        """Returns 0: the file (``data``) has no container."""
        return 0


class SweepCodec:
    """A codec that turns 8-bit pictures into files and back.

    Args:
        codec: An HM model, or another picture codec.
        refine: Number of refinement iterations on each picture's latent. Defaults to 0.
        config: Training config whose loss the iterations lower. Defaults to the loss of
            bits and PSNR.
        detector_regions: Makes a map of quantization steps for each picture.
        device: Device of an HM codec. Defaults to "cpu".
        **options: Arguments of the codec's ``encode``, such as ``quality``.
    """

    def __init__(
        self,
        codec: HumanMachineMixin | PictureCodec,
        refine: int = 0,
        config: str | None = None,
        detector_regions: DetectorRegions | None = None,
        device: str | torch.device = "cpu",
        **options,
    ):
        self.codec, self.refine, self.options = codec, refine, options
        self.files = FileCodec(codec) if codec.learned else codec
        self.detector_regions = detector_regions
        self.device = torch.device(device if codec.learned else "cpu")
        self.model = build_model(config).to(device) if config else None
        if codec.learned:
            codec.to(device)

    def encode(self, x: Tensor) -> bytes:
        """Returns the file of a picture.

        Args:
            x: RGB, uint8, ``(1, 3, H, W)``.
        """
        x, options = x.to(self.device).float() / 255, self.options
        if regions := self.detector_regions:
            y = self.codec.analyze(x) if regions.read_latents else None
            steps = regions.step_map(x, options.get("step", 1.0), self.codec, y)
            options = {**options, "step": steps}
            if y is not None:
                options["y"] = y
        if self.model is not None:
            options = {**options, "y": self.model.refine(x, self.refine, self.codec)}
        elif self.refine:
            y = refine(self.codec, x, None, self.refine, options["step"])
            options = {**options, "y": y}
        return self.files.encode(x, **options)

    def decode(self, data: bytes, size: tuple[int, int]) -> dict[str, Tensor]:
        """Returns the views of a picture, RGB, uint8, ``(1, 3, H, W)``.

        Args:
            data: The file.
            size: (H, W) of the picture.

        Returns:
            ``x_hat``, and ``x_bar`` for HM codecs.
        """
        views = ("human", "machine") if self.codec.learned else ("human",)
        decoded = self.files.decode(data, size, views)
        return {name: (v * 255).round().byte() for name, v in decoded.items()}

    def overhead(self, data: bytes) -> int:
        """Returns how many bytes of a file (``data``) belong to its container."""
        return self.files.overhead(data)


_SWEEP_KEYS = {"name", "qualities", "checkpoints", "steps"}
"""Keys of a config's codec that enter its digest by their effect or not at all."""
_CODEC_KEYS = _SWEEP_KEYS | {
    *("type", "metric", "pretrained", "refine", "config", "detector_regions")
}


def codec_digest(entry: dict, quality: int) -> str:
    """Returns 8 characters that differ if the coded files would differ.

    Args:
        entry: A codec of the config.
        quality: Its quality, or the index of its checkpoint or step.
    """
    rest = {k: v for k, v in entry.items() if k not in _SWEEP_KEYS}
    quality, step = _find_step(entry, quality)
    if step != 1:
        rest["step"] = step
        if not entry.get("checkpoints"):
            rest["quality"] = quality
    if detector_regions := _find_detector_regions(entry):
        weights = [file_digest(d.checkpoint) for d in detector_regions.detectors]
        rest["detector_regions"] = [detector_regions.identity(), weights]
    if entry.get("checkpoints"):
        rest["weights"] = file_digest(entry["checkpoints"][quality])
    elif entry.get("type") in RELEASED:
        file = weights_file(entry["type"], entry.get("metric", "mse"))
        rest["weights"] = file_digest(SCHEME + file)
    if classical := find_classical(entry.get("type")):
        if files := _build_classical(classical, entry, quality).files():
            rest["files"] = [file_digest(str(path)) for path in files]
        versions = ("pillow", "imageio-ffmpeg")
        rest["versions"] = [importlib.metadata.version(v) for v in versions]
    else:
        rest["versions"] = [__version__, VERSION]
        if entry.get("config"):
            model = Config.fromfile(entry["config"]).model
            rest["config"] = {k: v for k, v in model.items() if k != "codec"}
            if model.get("detector_checkpoint"):
                rest["detector"] = file_digest(model.detector_checkpoint)
    return value_digest(rest)


def _find_detector_regions(entry: dict) -> DetectorRegions | None:
    """Returns the regions of a codec with loaded detectors; equal entries share one."""
    if entry.get("detector_regions") is None:
        return None
    return _build_detector_regions(json.dumps(entry["detector_regions"]))


@lru_cache
def _build_detector_regions(options: str) -> DetectorRegions:
    detector_regions = DetectorRegions(**json.loads(options))
    detector_regions.load()
    return detector_regions


def build_coder(entry: dict, quality: int, device: str = "cpu") -> SweepCodec:
    """Builds a config's codec at one of its qualities.

    Args:
        entry: A codec of the config.
        quality: Its quality, or the index of its checkpoint or step.
        device: Device of an HM codec. Defaults to "cpu".

    Returns:
        The codec. The last two are cached.

    Raises:
        ValueError: If there is no such codec or quality.
    """
    return _build_coder(json.dumps(entry), quality, device)


@lru_cache(maxsize=2)
def _build_coder(entry: str, quality: int, device: str) -> SweepCodec:
    entry = json.loads(entry)
    kind, regions = entry.get("type"), _find_detector_regions(entry)
    quality, step = _find_step(entry, quality)
    if not entry.get("checkpoints") and (classical := find_classical(kind)):
        codec = _build_classical(classical, entry, quality)
        return SweepCodec(codec, detector_regions=regions)
    if entry.get("checkpoints"):
        net, options = load_checkpoint(entry["checkpoints"][quality], kind), {}
    else:
        options = {"quality": quality, "metric": entry.get("metric", "mse")}
        net = load_model(kind, **options, pretrained=entry.get("pretrained", True))
    refinement = entry.get("refine", 0), entry.get("config")
    return SweepCodec(net.eval(), *refinement, regions, device, step=step, **options)


def forget_coders() -> None:
    """Clears the cache, so that weights are read again if their files have changed."""
    _build_coder.cache_clear()
    _build_detector_regions.cache_clear()


def _build_classical(kind: type, entry: dict, quality: int) -> PictureCodec:
    options = inspect.signature(kind).parameters.keys() & entry.keys()
    return kind(**{**{key: entry[key] for key in options}, "quality": quality})


def _find_step(entry: dict, point: int) -> tuple[int, float]:
    """Returns a point's quality or index of the checkpoint, and quantization step."""
    if not entry.get("steps"):
        known = None if entry.get("checkpoints") else ENTRIES.get(entry["type"])
        return point, known.steps.get(point, 1.0) if known else 1.0
    quality = 0 if entry.get("checkpoints") else entry["qualities"][0]
    return quality, float(entry["steps"][point])


def _check_steps(entry: dict, qualities: list[int], classical: bool) -> None:
    name, steps = entry["name"], list(entry["steps"])
    if classical or len(qualities) != 1 or entry.get("config"):
        raise ValueError(
            f"codec {name!r}: steps need one checkpoint, or one quality, of an HM "
            "codec, without config"
        )
    if len(set(steps)) != len(steps):
        raise ValueError(f"codec {name!r} names a step twice: {steps}")
    for step in steps:
        try:
            QuantSteps.nearest(step, (16, 16))
        except (TypeError, ValueError) as e:
            raise ValueError(f"codec {name!r}: {e}") from None
    if not entry.get("checkpoints") and qualities[0] not in cfgs[entry["type"]]:
        raise ValueError(f"codec {name!r}: there is no quality {qualities[0]}")


def _check_detector_regions(entry: dict, classical: type | None) -> None:
    name = entry["name"]
    options = inspect.signature(classical.encode).parameters if classical else {"step"}
    if "step" not in options or entry.get("config"):
        raise ValueError(
            f"codec {name!r}: detector_regions need an HM codec without config, or HEVC"
        )
    try:
        regions = _find_detector_regions(entry)
        if classical and regions.read_latents:
            raise ValueError("detector_regions: a reader needs an HM codec's latent")
    except (TypeError, ValueError, KeyError, OSError, RuntimeError) as e:
        raise ValueError(f"codec {name!r}: {e}") from None


def check_codec(entry: dict) -> list[int]:
    """Checks a config's codec.

    Args:
        entry: A codec of the config.

    Returns:
        Its qualities, or the indices of its checkpoints or steps.

    Raises:
        ValueError: If a key or value is wrong, or names something that does not exist.
    """
    name, kind = entry["name"], entry.get("type")
    classical = find_classical(kind)
    checkpoints = entry.get("checkpoints", ())
    if checkpoints and kind is not None and not is_hm(kind):
        raise ValueError(
            f"codec {name!r}: checkpoints are of HM codecs; type {kind!r} is none"
        )
    if not checkpoints and not classical and kind not in cfgs:
        raise ValueError(
            f"codec {name!r}: type {kind!r} is unknown; there are "
            f"{sorted({*CLASSICAL, *cfgs})}, or give checkpoints"
        )
    options = inspect.signature(classical).parameters if classical else ()
    check_keys(f"codec {name!r}", entry, _CODEC_KEYS | (set(options) - {"quality"}))
    iterations, config = entry.get("refine"), entry.get("config")
    if iterations is not None or (config is not None and "config" not in options):
        valid = isinstance(iterations, int) and iterations > 0
        valid = valid and (config is None or Path(str(config)).is_file())
        if not valid or classical:
            raise ValueError(
                f"codec {name!r}: refine={iterations!r}, config={config!r}; for an HM "
                "codec give a number of iterations, with or without a training config"
            )
    has_steps = not checkpoints and kind in ENTRIES and ENTRIES[kind].steps
    if iterations and config and has_steps:
        raise ValueError(
            f"codec {name!r}: config needs a quantization step of 1, and {kind} has "
            "others; leave config out"
        )
    metric = entry.get("metric")
    if metric is not None and (checkpoints or classical):
        raise ValueError(f"codec {name!r}: metric={metric!r} is for zoo entries alone")
    if metric is not None and metric not in METRICS:
        raise ValueError(
            f"codec {name!r}: metric must be one of {list(METRICS)}, got {metric!r}"
        )
    if entry.get("detector_regions") is not None:
        _check_detector_regions(entry, classical)
    for path in checkpoints:
        if not local_path(path).is_file():
            raise ValueError(f"codec {name!r}: {path} does not exist")
    qualities = list(range(len(checkpoints)) or entry.get("qualities", ()))
    if entry.get("steps"):
        _check_steps(entry, qualities, classical is not None)
        return list(range(len(entry["steps"])))
    if not qualities or len(set(qualities)) != len(qualities):
        raise ValueError(f"codec {name!r} names no qualities, or one twice")
    for quality in qualities:
        try:
            if classical:
                build_coder(entry, quality)
            elif not checkpoints and quality not in cfgs[kind]:
                raise ValueError(f"there is no quality {quality}")
        except (TypeError, ValueError) as e:
            raise ValueError(f"codec {name!r}: {e}") from e
    return qualities
