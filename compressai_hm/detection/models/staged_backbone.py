"""A detector's backbone whose first stages are replaced by a LatentBackbone."""

from collections.abc import Callable
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...models.latent_backbone import GRID, LatentBackbone


@MODELS.register_module()
class StagedLatentBackbone(nn.Module):
    """A LatentBackbone, and the detector's own stages after it.

    ::

        picture ─► stages up to stride 8 ─┬─► later stages ─► ...
                                          │ is replaced by
        y_hat   ─► LatentBackbone ────────┴─► later stages ─► ...

    The later stages have the names that they have in the detector's checkpoint. A
    backbone that does not list its stages, as MMDetection's ResNet, MobileNetV2,
    CSPDarknet and CSPNeXt do, is replaced as a whole.

    Args:
        in_channels: M, channels of y_hat.
        backbone: Config of the detector's backbone.
        **options: ``widths``, ``depths`` and ``scale`` of the :class:`LatentBackbone`.

    Raises:
        ValueError: If the backbone does not take 128x128 pixels.
    """

    def __init__(self, in_channels: int, backbone: dict, **options: Any):
        super().__init__()
        original = MODELS.build(backbone)
        levels, stages = _find_shapes(original)
        ends = [name for name, (_, stride) in stages.items() if stride == GRID]
        names = list(stages)
        first = names.index(ends[-1]) + 1 if ends else len(names)
        wanted = [names[i] for i in original.out_indices] if ends else []
        self._later = names[first : max(original.out_indices) + 1] if ends else []
        self._wanted = [name for name in wanted if name in self._later]
        if ends:
            kept = [name for name in wanted if name in names[:first]]
            self._given = len(kept)
            replaced = [stages[name] for name in kept]
            if ends[-1] not in kept:
                replaced.append(stages[ends[-1]])
        else:
            self._given, replaced = len(levels), levels
        self.latent = LatentBackbone(
            in_channels,
            *(list(values) for values in zip(*replaced, strict=True)),
            **options,
        )
        for name in self._later:
            self.add_module(name, getattr(original, name))

    @property
    def resample(self) -> Callable[..., Tensor]:
        """Returns :meth:`LatentBackbone.resample`."""
        return self.latent.resample

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the levels of the detector's backbone.

        Args:
            x: Results of :meth:`resample`.

        Returns:
            Features of each level, ``(N, C, h, w)``.
        """
        levels = self.latent(x)
        outputs, x = list(levels[: self._given]), levels[-1]
        for name in self._later:
            x = getattr(self, name)(x)
            if name in self._wanted:
                outputs.append(x)
        return tuple(outputs)

    def init_weights(self) -> None:
        """Does nothing; MMEngine calls it, and checkpoints hold the later stages."""


@torch.no_grad()
def _find_shapes(
    backbone: nn.Module, side: int = 128
) -> tuple[list[tuple[int, int]], dict[str, tuple[int, int]]]:
    """Returns channels and stride of each output, and of each named stage in order."""
    stages: dict[str, tuple[int, int]] = {}
    names = getattr(backbone, "res_layers", None) or getattr(backbone, "layers", None)
    names = [n for n in names or () if isinstance(n, str) and hasattr(backbone, n)]

    def note(name: str, output: Tensor) -> None:
        stages[name] = (output.shape[1], side // output.shape[-1])

    hooks = [
        getattr(backbone, name).register_forward_hook(
            lambda module, inputs, output, name=name: note(name, output)
        )
        for name in names
    ]
    backbone.eval()  # some backbones return nothing
    try:
        levels = backbone(torch.zeros(1, 3, side, side))
    except RuntimeError as e:
        raise ValueError(
            f"the levels of model.detector's {type(backbone).__name__} cannot be found "
            f"on {side}x{side} pixels, as LatentHumanMachineDetector needs: {e}"
        ) from e
    backbone.train()
    for hook in hooks:
        hook.remove()
    return [(level.shape[1], side // level.shape[-1]) for level in levels], stages
