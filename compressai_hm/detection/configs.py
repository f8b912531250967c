"""Building codecs and detectors from the entries of a config."""

from collections.abc import Callable

import compressai.zoo
from compressai.registry import MODELS as CODECS
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.logging import print_log
from torch import Tensor, nn

from ..classical import CLASSICAL
from ..zoo import is_hm
from .load import load_codec_weights
from .view import find_resize

Weights = Callable[[], dict[str, Tensor]]


def build_codec(cfg: dict | None) -> tuple[nn.Module, Weights | None]:
    """Builds a codec from ``model.codec``, without weights.

    Args:
        cfg: ``type``, a name of CompressAI's zoo or registry or of a classical codec,
            and its arguments; for starting weights ``checkpoint`` or ``pretrained``.

    Returns:
        The codec, and a function that loads its starting weights; None for the function
        if the config names no weights.

    Raises:
        TypeError: If ``cfg`` is missing.
        ValueError: If ``cfg`` names neither an HM model nor a classical codec, or
            weights that this codec cannot have.
    """
    if not cfg:
        raise TypeError(
            "model.codec is missing: give dict(type='hm-cheng2020-anchor', quality=3)"
        )
    cfg = dict(cfg)
    name = cfg.pop("type", None)
    checkpoint, pretrained = cfg.pop("checkpoint", None), cfg.get("pretrained", False)
    if checkpoint and pretrained:
        raise ValueError("model.codec takes checkpoint or pretrained, not both")
    if pretrained and "quality" not in cfg:
        raise ValueError("model.codec.pretrained needs model.codec.quality")
    if "quality" in cfg and name in compressai.zoo.image_models:
        entry = compressai.zoo.image_models[name]
        codec = entry(**{**cfg, "pretrained": False})
    elif name in CODECS:
        cfg.pop("pretrained", None)
        codec = CODECS[name](**cfg)
    else:
        known = sorted({*CLASSICAL, *(k for k in CODECS if is_hm(k))})
        raise ValueError(f"model.codec.type {name!r} is unknown; there are {known}")
    learned = getattr(codec, "learned", None)
    if learned is False:
        return codec, None
    if learned is None:
        raise ValueError(f"model.codec.type {name!r} is no HM model: try 'hm-{name}'")
    codec.hide_tables()
    weights = None
    if checkpoint:

        def weights() -> dict[str, Tensor]:
            return load_codec_weights(checkpoint)

    elif pretrained:

        def weights() -> dict[str, Tensor]:
            return entry(**cfg).state_dict()

    return codec, weights


def detector_config(detector: dict | str, resize: dict | None) -> tuple[dict, dict]:
    """Returns the model config of a detector, and the resize that it expects.

    Args:
        detector: An MMDetection model config, a whole config, or the name of one.
        resize: Arguments of :class:`DetectorView`. None takes the resize of the test
            pipeline for a whole config, and MMDetection's (1333, 800) for a model
            config.

    Returns:
        The model config, and arguments of :class:`DetectorView`.
    """
    if isinstance(detector, str):
        detector = (
            get_config(detector) if "::" in detector else Config.fromfile(detector)
        )
    if "model" in detector:
        if resize is None:
            resize = find_resize(detector["test_pipeline"])
        detector = detector["model"]
    elif resize is None:
        resize = dict(scale=(1333, 800), keep_ratio=True)
        print_log(
            "model.detector has no test pipeline: it reads pictures resized to "
            "(1333, 800); another size is given as model.resize=dict(scale=...), and "
            "the pictures' own as scale=None",
            "current",
        )
    return ConfigDict(detector), resize


def find_weights(config: str) -> str:
    """Returns the URL of the weights that MMDetection publishes for one of its configs.

    Args:
        config: The config's name, such as "mmdet::yolox/yolox_tiny_8xb8-300e_coco.py".

    Raises:
        ValueError: If no weights are published for it.
    """
    if "::" not in config:
        raise ValueError(f"which weights has {config}? Give CONFIG,CHECKPOINT")
    try:
        return get_config(config, pretrained=True).model_path
    except (AssertionError, AttributeError):
        raise ValueError(
            f"for {config} no weights are published: give CONFIG,CHECKPOINT"
        ) from None


def find_classes(config: dict | str, count: int) -> tuple[str, ...] | None:
    """Returns the classes that a detector's config is tested on.

    Args:
        config: See :func:`detector_config`.
        count: The number of the detector's labels.

    Returns:
        Their names; None if the config does not name them, or names another number.
    """
    if isinstance(config, str):
        config = get_config(config) if "::" in config else Config.fromfile(config)
    dataset = config.get("test_dataloader", {}).get("dataset", {})
    kind = DATASETS.get(dataset["type"]) if "type" in dataset else None
    meta = {**getattr(kind, "METAINFO", {}), **(dataset.get("metainfo") or {})}
    classes = tuple(meta.get("classes", ()))
    return classes if len(classes) == count else None


def raise_threshold(detector: nn.Module, score_thr: float) -> None:
    """Drops detections of low scores before they cost time; the others stay the same.

    Args:
        detector: The detector, which is changed.
        score_thr: The lowest score that counts.
    """
    for part in detector.modules():
        cfg = getattr(part, "test_cfg", None)
        if cfg and "score_thr" in cfg:
            cfg.score_thr = max(cfg.score_thr, score_thr)


def read_latent(detector: dict, in_channels: int, options: dict) -> ConfigDict:
    """Returns a detector's config with a StagedLatentBackbone in place of its backbone.

    Args:
        detector: The model config.
        in_channels: Channels of y_hat.
        options: ``widths``, ``depths`` and ``scale`` of the LatentBackbone.

    Returns:
        The changed copy of the config.

    Raises:
        ValueError: For another option.
    """
    unknown = sorted(set(options) - {"widths", "depths", "scale"})
    if unknown:
        raise ValueError(
            f"model.latent_backbone takes widths and depths, got {unknown}"
        )
    detector = ConfigDict(detector)
    detector.backbone = dict(
        type="StagedLatentBackbone",
        in_channels=in_channels,
        backbone=detector.backbone,
        **options,
    )
    return detector
