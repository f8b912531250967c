"""Building the model of a training config without a runner."""

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from .models.detector import HumanMachineDetector


def build_model(config: str | Config) -> HumanMachineDetector:
    """Builds the model of a training config and loads its starting weights.

    Args:
        config: The config, or the path of its file.

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        FileNotFoundError: If the config or a file of its weights does not exist.
        ValueError: If the config's model is not a HumanMachineDetector.
    """
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
