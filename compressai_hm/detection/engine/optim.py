"""One optimizer in place of CompressAI's two.

The auxiliary loss reaches only the entropy bottleneck's quantiles, and the other losses
never reach them. A parameter group for the quantiles therefore replaces the second
optimizer, if its learning rate is constant, it has no weight decay, and its gradients
do not enter the norm by which the others are clipped.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
)
from torch import nn

from .unwrap import unwrap_model


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class HumanMachineOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """A parameter group for each part that trains, and one for the quantiles.

    ``paramwise_cfg`` takes:

    - ``lr_mult``: factor of the learning rate by part, such as ``dict(g_t=10)``.
    - ``max_norm``: the gradient norm to which each part is clipped. Defaults to 1.0;
      None does not clip.
    - ``quantiles_lr``: the quantiles' constant learning rate. Defaults to 1e-3.

    Raises:
        ValueError: For another key, or a part that does not exist.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        cfg = dict(self.paramwise_cfg)
        lr_mult = dict(cfg.pop("lr_mult", {}))
        max_norm = cfg.pop("max_norm", 1.0)
        quantiles_lr = cfg.pop("quantiles_lr", 1e-3)
        if not isinstance(self.base_lr, (int, float)):
            raise ValueError(
                f"optim_wrapper.optimizer.lr must be a number, got {self.base_lr!r}"
            )
        if self.optim_wrapper_cfg.get("clip_grad"):
            raise ValueError(
                "optim_wrapper.clip_grad would count the quantiles; use "
                "paramwise_cfg.max_norm, which clips each part"
            )
        if cfg:
            raise ValueError(
                f"optim_wrapper.paramwise_cfg has no {sorted(cfg)}; it takes lr_mult, "
                "max_norm and quantiles_lr"
            )
        parts = unwrap_model(model).part_parameters()
        if set(lr_mult) - set(parts):
            raise ValueError(
                f"paramwise_cfg.lr_mult knows the parts {list(parts)}, got "
                f"{sorted(lr_mult)}"
            )
        groups = []
        for part, parameters in parts.items():
            parameters = [p for p in parameters if p.requires_grad]
            if not parameters:
                continue
            group = {"params": parameters, "name": part}
            if part == "quantiles":
                group.update(lr=quantiles_lr, weight_decay=0.0)
            else:
                group["lr"] = self.base_lr * lr_mult.get(part, 1.0)
            groups.append(group)
        if not groups:
            raise ValueError("nothing trains: see model.trainable")

        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, "params": groups})

        # A hook of the optimizer runs with every OptimWrapper, and after AMP has
        # unscaled the gradients.
        def before_step(
            optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict
        ) -> None:
            _unscale(optimizer)
            for group in optimizer.param_groups:
                if group["name"] == "quantiles":
                    group["lr"] = quantiles_lr  # schedulers act on every group
                elif max_norm is not None:
                    torch.nn.utils.clip_grad_norm_(group["params"], max_norm)

        optimizer.register_step_pre_hook(before_step)
        return OPTIM_WRAPPERS.build(
            {"type": "OptimWrapper", **self.optim_wrapper_cfg},
            default_args=dict(optimizer=optimizer),
        )


def _unscale(optimizer: torch.optim.Optimizer) -> None:
    """Unscales gradients for fused optimizers, for which AMP does not do it."""
    scale = getattr(optimizer, "grad_scale", None)
    if scale is None:
        return
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                p.grad.div_(scale.to(p.grad.device))
    optimizer.grad_scale = None


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Mixed precision on CPU and MPS, where MMEngine's AmpOptimWrapper refuses to run.

    The transforms and the detector compute in bfloat16, and the entropy model in
    float32. On a CPU with instructions for bfloat16 (AVX512-BF16) a step takes 0.6 of
    the time. On an MPS without bfloat16 torch warns, and computes in float32.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield
