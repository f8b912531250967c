"""Access to models inside wrappers for several GPUs."""

from mmengine.model import is_model_wrapper
from torch import nn


def unwrap_model(model: nn.Module) -> nn.Module:
    """Returns the model inside a wrapper such as DDP's; another model as it is.

    Args:
        model: The runner's model.
    """
    return model.module if is_model_wrapper(model) else model
