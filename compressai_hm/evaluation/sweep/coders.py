"""What codes a sweep's pictures: the codecs of its config."""

import importlib.metadata
import inspect
import json
from functools import lru_cache
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor

from ... import __version__
from ...codecs import CLASSICAL, ENTRIES, PictureCodec, Steps, container, refine
from ...codecs.classical import find_classical
from ...detection import Attention
from ...detection.build import build_model
from ...zoo import cfgs, is_hm, load_checkpoint, load_model
from ...zoo.released import RELEASED, SCHEME, file_of, local_path
from .checks import check_keys
from .digests import file_digest, value_digest


class Uncompressed:
    """A picture codec that codes nothing: its file is the samples."""

    learned = False

    def encode(self, x: Tensor) -> bytes:
        """The samples in 8 bits."""
        return (x[0] * 255).round().byte().numpy().tobytes()

    def decode(
        self, data: bytes, size: tuple[int, int], views: tuple[str, ...] = ()
    ) -> dict[str, Tensor]:
        """The picture, whatever views are asked for."""
        flat = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return {"x_hat": flat.view(1, 3, *size).float() / 255}

    def overhead(self, data: bytes) -> int:
        """None."""
        return 0


class Coder:
    """A codec that turns 8-bit pictures into files and back.

    Args:
        codec: Any picture codec.
        refine: Gradient steps on each picture's latent.
        config: The training config whose loss they lower; without it, that of people.
        attention: What makes maps of steps.
        device: Where an HM codec computes, and all that serves it.
        **options: Of the codec's ``encode``, such as the ``quality`` of its zoo entry.
    """

    def __init__(
        self,
        codec: PictureCodec,
        refine: int = 0,
        config: str | None = None,
        attention: Attention | None = None,
        device: str | torch.device = "cpu",
        **options,
    ):
        self.codec, self.refine, self.options = codec, refine, options
        self.attention = attention
        self.device = torch.device(device if codec.learned else "cpu")
        self.model = build_model(config).to(device) if config else None
        if codec.learned:
            codec.to(device)

    def encode(self, x: Tensor) -> bytes:
        """The file of a picture, uint8 RGB, ``(1, 3, H, W)``."""
        x, options = x.to(self.device).float() / 255, self.options
        if self.attention:
            steps = self.attention.steps(x, options.get("step", 1.0))
            options = {**options, "step": steps}
        if self.model is not None:
            options = {**options, "y": self.model.refine(x, self.refine, self.codec)}
        elif self.refine:
            y = refine(self.codec, x, None, self.refine, options["step"])
            options = {**options, "y": y}
        return self.codec.encode(x, **options)

    def decode(self, data: bytes, size: tuple[int, int]) -> dict[str, Tensor]:
        """Its different views, uint8; of a codec that has one, ``x_hat``."""
        views = ("human", "machine") if self.codec.learned else ("human",)
        decoded = self.codec.decode(data, size, views)
        return {name: (v * 255).round().byte() for name, v in decoded.items()}

    def overhead(self, data: bytes) -> int:
        """Bytes of the file that are container."""
        return self.codec.overhead(data)


_OF_THE_SWEEP = {"name", "qualities", "checkpoints", "steps", "trained_for", "curve"}
"""Keys of a config's codec that change none of its files."""
_CODEC_KEYS = _OF_THE_SWEEP | {
    *("type", "metric", "pretrained", "refine", "config", "attention")
}


def codec_digest(entry: dict, quality: int) -> str:
    """Differs where other files would be coded."""
    rest = {k: v for k, v in entry.items() if k not in _OF_THE_SWEEP}
    quality, step = _of_steps(entry, quality)
    if step != 1:
        rest["step"] = step
        if not entry.get("checkpoints"):
            rest["quality"] = quality
    if attention := _attention(entry):
        weights = [file_digest(own.checkpoint) for own in attention.detectors]
        rest["attention"] = [attention.identity(), weights]
    if entry.get("checkpoints"):
        rest["weights"] = file_digest(entry["checkpoints"][quality])
    elif entry.get("type") in RELEASED:
        file = file_of(entry["type"], entry.get("metric", "mse"))
        rest["weights"] = file_digest(SCHEME + file)
    if classical := find_classical(entry.get("type")):
        if files := _built_classical(classical, entry, quality).files():
            rest["files"] = [file_digest(str(path)) for path in files]
        versions = ("pillow", "imageio-ffmpeg")
        rest["versions"] = [importlib.metadata.version(v) for v in versions]
    else:
        rest["versions"] = [__version__, container.VERSION]
        if entry.get("refine"):
            rest["refine"] = [entry["refine"], "coded"]
        if entry.get("config"):
            model = Config.fromfile(entry["config"]).model
            rest["config"] = {k: v for k, v in model.items() if k != "codec"}
            if model.get("detector_checkpoint"):
                rest["detector"] = file_digest(model.detector_checkpoint)
    return value_digest(rest)


def _attention(entry: dict) -> Attention | None:
    """Of a config's codec, with its weights; one of equal ones."""
    if entry.get("attention") is None:
        return None
    return _built_attention(json.dumps(entry["attention"]))


@lru_cache
def _built_attention(options: str) -> Attention:
    attention = Attention(**json.loads(options))
    attention.load()
    return attention


def build_coder(entry: dict, quality: int, device: str = "cpu") -> Coder:
    """The coder of a config's codec at one of its qualities, on a device.

    Raises:
        ValueError: If there is no such codec or quality.
    """
    return _built_coder(json.dumps(entry), quality, device)


@lru_cache(maxsize=2)
def _built_coder(entry: str, quality: int, device: str) -> Coder:
    entry = json.loads(entry)
    kind = entry.get("type")
    how = entry.get("refine", 0), entry.get("config"), _attention(entry), device
    quality, step = _of_steps(entry, quality)
    if entry.get("checkpoints"):
        net = load_checkpoint(entry["checkpoints"][quality], kind)
        return Coder(net.eval(), *how, step=step)
    if classical := find_classical(kind):
        codec = _built_classical(classical, entry, quality)
        return Coder(codec, attention=_attention(entry))
    metric, pretrained = entry.get("metric", "mse"), entry.get("pretrained", True)
    net = load_model(kind, quality, metric, pretrained=pretrained)
    return Coder(net.eval(), *how, quality=quality, metric=metric, step=step)


def forget_coders() -> None:
    """Has weights read anew: their files may have changed."""
    _built_coder.cache_clear()
    _built_attention.cache_clear()


def _built_classical(kind: type, entry: dict, quality: int) -> PictureCodec:
    own = inspect.signature(kind).parameters
    return kind(**{**{k: v for k, v in entry.items() if k in own}, "quality": quality})


def _of_steps(entry: dict, point: int) -> tuple[int, float]:
    """The quality, or the place of the checkpoint, and the step of a point."""
    if not entry.get("steps"):
        own = None if entry.get("checkpoints") else ENTRIES.get(entry["type"])
        return point, own.steps.get(point, 1.0) if own else 1.0
    quality = 0 if entry.get("checkpoints") else entry["qualities"][0]
    return quality, float(entry["steps"][point])


def _check_steps(entry: dict, qualities: list[int], classical: bool) -> None:
    name, steps = entry["name"], list(entry["steps"])
    if classical or len(qualities) != 1 or entry.get("config"):
        raise ValueError(
            f"codec {name!r}: steps are of one checkpoint, or one quality, of an HM "
            "codec, without config"
        )
    if len(set(steps)) != len(steps):
        raise ValueError(f"codec {name!r} names a step twice: {steps}")
    for step in steps:
        try:
            Steps.of(step, (16, 16))
        except (TypeError, ValueError) as e:
            raise ValueError(f"codec {name!r}: {e}") from None
    if not entry.get("checkpoints") and qualities[0] not in cfgs[entry["type"]]:
        raise ValueError(f"codec {name!r}: there is no quality {qualities[0]}")


def _check_attention(entry: dict, classical: type | None) -> None:
    name = entry["name"]
    own = inspect.signature(classical.encode).parameters if classical else {"step"}
    if "step" not in own or entry.get("config"):
        raise ValueError(
            f"codec {name!r}: attention is of an HM codec without config, or of HEVC"
        )
    try:
        _attention(entry)
    except (TypeError, ValueError, KeyError, OSError, RuntimeError) as e:
        raise ValueError(f"codec {name!r}: {e}") from None


def check_codec(entry: dict) -> list[int]:
    """The qualities of a config's codec, or the places of its checkpoints or steps.

    Raises:
        ValueError: If it names something that does not exist.
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
    own = inspect.signature(classical).parameters if classical else ()
    check_keys(f"codec {name!r}", entry, _CODEC_KEYS | (set(own) - {"quality"}))
    steps, config = entry.get("refine"), entry.get("config")
    if steps is not None or (config is not None and "config" not in own):
        whole = isinstance(steps, int) and steps > 0
        whole = whole and (config is None or Path(str(config)).is_file())
        if not whole or classical:
            raise ValueError(
                f"codec {name!r}: refine={steps!r}, config={config!r}; for an HM codec "
                "give a number of steps, and maybe a training config"
            )
    if steps and config and kind in ENTRIES and ENTRIES[kind].steps and not checkpoints:
        raise ValueError(
            f"codec {name!r}: config is for steps of 1, and {kind} has others; refine "
            "goes without it"
        )
    metric = entry.get("metric")
    if metric is not None and (checkpoints or classical):
        raise ValueError(f"codec {name!r}: metric={metric!r} is for zoo entries alone")
    if metric is not None and metric not in container.METRICS:
        raise ValueError(
            f"codec {name!r}: metric must be one of {list(container.METRICS)}, got "
            f"{metric!r}"
        )
    if entry.get("attention") is not None:
        _check_attention(entry, classical)
    for path in checkpoints:
        if not local_path(path).is_file():
            raise ValueError(f"codec {name!r}: {path} does not exist")
    qualities = list(range(len(checkpoints)) or entry.get("qualities", ()))
    if entry.get("steps"):
        _check_steps(entry, qualities, classical is not None)
        qualities = list(range(len(entry["steps"])))
        return qualities
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
