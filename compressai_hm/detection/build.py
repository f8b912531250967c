"""From a config's words to a codec, a detector and their weights."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import compressai.zoo
import torch
from compressai.registry import MODELS as CODECS
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ..codecs import CLASSICAL, HumanMachineMixin
from ..zoo import is_hm
from .checkpoint import classes_of, fetch_checkpoint, load_codec_weights
from .view import resize_of

if TYPE_CHECKING:
    from .detector import HumanMachineDetector


Weights = Callable[[], dict[str, Tensor]]


def build_codec(cfg: dict | None) -> tuple[nn.Module, Weights | None]:
    """The codec without weights, and a function that gets its starting weights.

    Raises:
        TypeError: If there is no ``cfg``.
        ValueError: If it names neither an HM model nor a classical codec, or weights
            that it cannot have.
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


def build_model(config: str | Config) -> "HumanMachineDetector":
    """The model of a training config in eval mode, with what it starts from.

    Raises:
        FileNotFoundError: If there is no such config, or its weights are missing.
        ValueError: If its model is no HumanMachineDetector.
    """
    from .detector import HumanMachineDetector

    cfg = Config.fromfile(config) if isinstance(config, str) else config
    init_default_scope("mmdet")
    kind = cfg.get("model", {}).get("type")
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(kind, type) and issubclass(kind, HumanMachineDetector)):
        raise ValueError(f"{config}: its model is no HumanMachineDetector")
    try:
        model = MODELS.build(cfg.model)
    except (KeyError, TypeError) as e:
        raise ValueError(f"{config}: {e}") from e
    model.init_weights()
    return model.eval()


def detector_config(detector: dict | str, resize: dict | None) -> tuple[dict, dict]:
    """The model config, and the resize that goes with it unless one is given.

    Args:
        detector: An MMDetection model config, a whole config, or the name of one.
        resize: :class:`DetectorView`'s arguments. None takes what the test pipeline of
            a whole config does, and MMDetection's (1333, 800) for a model config.
    """
    if isinstance(detector, str):
        detector = (
            get_config(detector) if "::" in detector else Config.fromfile(detector)
        )
    if "model" in detector:
        if resize is None:
            resize = resize_of(detector["test_pipeline"])
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


def weights_named_by(config: str) -> str:
    """The weights that MMDetection publishes for a config of its own.

    Args:
        config: Its name, such as "mmdet::yolox/yolox_tiny_8xb8-300e_coco.py".

    Raises:
        ValueError: If there are none.
    """
    if "::" not in config:
        raise ValueError(f"which weights has {config}? Give CONFIG,CHECKPOINT")
    try:
        return get_config(config, pretrained=True).model_path
    except (AssertionError, AttributeError):
        raise ValueError(
            f"for {config} no weights are published: give CONFIG,CHECKPOINT"
        ) from None


def classes_named_by(config: dict | str, count: int) -> tuple[str, ...] | None:
    """The classes that a whole config is tested on.

    Args:
        config: See :func:`detector_config`.
        count: Of the detector's labels.

    Returns:
        None where it does not say, or names another number of classes.
    """
    if isinstance(config, str):
        config = get_config(config) if "::" in config else Config.fromfile(config)
    dataset = config.get("test_dataloader", {}).get("dataset", {})
    kind = DATASETS.get(dataset["type"]) if "type" in dataset else None
    meta = {**getattr(kind, "METAINFO", {}), **(dataset.get("metainfo") or {})}
    classes = tuple(meta.get("classes", ()))
    return classes if len(classes) == count else None


@torch.no_grad()
def read_latent(detector: dict, codec: HumanMachineMixin, options: dict) -> ConfigDict:
    """A detector's config with a LatentBackbone of the same levels as its own backbone.

    Args:
        detector: The model config.
        codec: Whose y_hat it will read.
        options: ``width`` and ``depth``.

    Raises:
        ValueError: For another option.
    """
    if set(options) - {"width", "depth"}:
        raise ValueError(
            f"model.latent_backbone takes width and depth, got {sorted(options)}"
        )
    side = 128
    picture = torch.zeros(1, 3, side, side)
    replaced = MODELS.build(detector["backbone"])
    replaced.eval()
    try:
        levels = replaced(picture)
    except RuntimeError as e:
        raise ValueError(
            f"the levels of model.detector's {type(replaced).__name__} cannot be found "
            f'on {side}x{side} pixels, as task_view="y_hat" needs: {e}'
        ) from e
    detector = ConfigDict(detector)
    detector.backbone = dict(
        type="LatentBackbone",
        in_channels=codec.analyse(picture).shape[1],
        out_channels=[level.shape[1] for level in levels],
        strides=[side // level.shape[-1] for level in levels],
        **options,
    )
    return detector


def load_detector(
    module: nn.Module, checkpoint: str, without: str | None = None
) -> tuple[str, ...] | None:
    """Loads a detector's weights from its own or a HumanMachineDetector's checkpoint.

    Args:
        module: The detector.
        checkpoint: A file, URL or ``compressai_hm://`` name.
        without: Prefix of weights that are left as they are.

    Returns:
        The names of the classes it was trained for; None where they are not said.

    Raises:
        RuntimeError: If it is of another model.
    """
    found, own = fetch_checkpoint(checkpoint), module.state_dict()
    weights = found.part("detector.")
    if without:
        kept = {k: v for k, v in own.items() if k.startswith(without)}
        weights = {k: v for k, v in weights.items() if not k.startswith(without)}
        weights.update(kept)
    wrong = mismatches(module, weights)
    if wrong:
        raise RuntimeError(
            f"{checkpoint} is of another model than {type(module).__name__}: "
            f"{len(wrong)} of {len(own)} weights are missing or of another shape, the "
            f"first is {wrong[0]}"
        )
    module.load_state_dict({k: v for k, v in weights.items() if k in own}, strict=False)
    return found.meta.get("detector_classes") or classes_of(found.meta)


def mismatches(module: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """The module's weights that are missing or of another shape."""
    return [
        key
        for key, value in module.state_dict().items()
        if not key.endswith("num_batches_tracked")
        and (key not in weights or weights[key].shape != value.shape)
    ]
