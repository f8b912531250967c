"""How each kind of CompressAI model codes its latent.

A family describes a model's entropy part: how z is computed from y, and in which groups
y is coded. Both training, with noise in place of a bitstream, and exact coding follow
from this. A family holds no state: it is a view of one model's modules, made when it is
needed.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn as nn
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.latent_codecs import (
    ChannelGroupsLatentCodec,
    CheckerboardLatentCodec,
    GaussianConditionalLatentCodec,
    HyperLatentCodec,
    HyperpriorLatentCodec,
)
from compressai.models import (
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
    SimpleVAECompressionModel,
)
from compressai.ops import quantize_ste
from torch import Tensor

from ..compat import compressai_private as private
from .steps import QuantSteps, step_values


@dataclass(frozen=True)
class Group:
    """Channels of y that are coded together, and the modules that predict them.

    Args:
        channels: The channels.
        order: A name in ``order.ORDERS``.
        gaussian: Their conditional Gaussian.
        parameters: Chain of modules that computes scale and mean from the parts.
        parts: Inputs of that chain, concatenated: "hyper" (h_s of z_hat), "step" (from
            ``steps.step_features``), "channels" (``across``), "spatial" (``spatial``).
        means_first: Whether the means precede the scales; None without means.
        log_scales: Whether the chain gives log2 of the scales.
        skips: Whether positions of the smallest scale are not coded; their symbols are
            0.
        spatial: The convolution over the decoded part of these channels.
        across: The network over the channels of the groups before.
    """

    channels: slice
    order: str
    gaussian: GaussianConditional
    parameters: tuple[nn.Module, ...]
    parts: tuple[str, ...] = ("hyper",)
    means_first: bool | None = False
    log_scales: bool = False
    skips: bool = False
    spatial: nn.Module | None = None
    across: nn.Module | None = None

    def nets(self) -> Iterator[nn.Module]:
        """Yields all modules whose weights the coder uses, except the Gaussian."""
        yield from filter(None, (self.across, self.spatial, *self.parameters))


class Family(ABC):
    """The description of an entropy part that training and coding need.

    A codec of no known family names its family as a class attribute::

        class HMMine(HumanMachineMixin, MyCodec):
            entropy_family = MyFamily

    Args:
        model: A CompressAI model.
    """

    trains_on_symbols = False
    """Whether :meth:`training` without ``coded`` already sees the coded latent."""

    def __init__(self, model: nn.Module):
        self.model = model

    @property
    def bottleneck(self) -> EntropyBottleneck:
        """Entropy bottleneck of z."""
        return self.model.entropy_bottleneck

    @property
    def h_s(self) -> nn.Module:
        """Network from z_hat to side information, whose sides are 4 times as large."""
        return self.model.h_s

    @abstractmethod
    def hyper_analysis(
        self, y: Tensor, steps: list[QuantSteps] | None = None
    ) -> Tensor:
        """Computes z from y.

        Args:
            y: The latent, ``(N, M, 4 h, 4 w)``.
            steps: Quantization steps of each picture, for families that depend on them.
                Defaults to None, 1 everywhere.

        Returns:
            z, ``(N, C, h, w)``.
        """

    @abstractmethod
    def groups(self) -> Iterator[Group]:
        """Yields the groups of y in coding order.

        Raises:
            TypeError: If the structure has no exact coder.
        """

    def training(
        self,
        y: Tensor,
        steps: list[QuantSteps] | None = None,
        coded: Tensor | None = None,
    ) -> dict[str, Any]:
        """Computes y_hat and likelihoods of noisy latents, as training needs them.

        At a step of 1 y_hat and the likelihoods are those of CompressAI, for all of its
        models. Contexts within a checkerboard, and over groups of channels, see rounded
        latents, as in CompressAI.

        Args:
            y: The latent, ``(N, M, h, w)``.
            steps: Quantization steps of each picture, which are the width of the noise.
                Defaults to None, 1 everywhere.
            coded: y_hat from the coder, like y. Then z, y_hat, its likelihoods and its
                contexts are those of rounded latents, as in the coder, and noise gives
                y its gradient. Defaults to None: all of them are those of noisy
                latents.

        Returns:
            ``y_hat``, like y, and ``likelihoods`` ``{"y", "z"}``, probabilities.
        """
        step = 1.0 if steps is None else step_values(steps, y.shape[-2:]).to(y)
        z = self.hyper_analysis(y)
        z_hat, p_z = self._training_z(z)
        if coded is not None:
            z_hat = rounded(z, private.get_medians(self.bottleneck))
        side = self.h_s(z_hat)
        decoded, likelihoods = [], []
        for group in self.groups():
            y_k, noisy = y[:, group.channels], None
            parts = {"hyper": side}
            if group.across is not None:
                parts["channels"] = group.across(torch.cat(decoded, 1))
            if group.order == "checkerboard":
                scale, mean = _predict_in_two_passes(group, y_k, step, parts)
            else:
                if group.spatial is not None and coded is None:
                    noisy = group.gaussian.quantize(y_k / step, "noise") * step
                    parts["spatial"] = group.spatial(noisy)
                elif group.spatial is not None:
                    known = y_k + (coded[:, group.channels] - y_k).detach()
                    parts["spatial"] = group.spatial(known)
                scale, mean = _predict(group, parts)
            if coded is not None:
                y_hat, p_y = _code_latent(group.gaussian, y_k, scale, mean, step)
            else:
                drawn, p_y = group.gaussian(y_k / step, scale / step, means=mean / step)
                if group.order == "checkerboard":
                    y_hat = rounded(y_k, mean, step)
                else:
                    y_hat = drawn * step if noisy is None else noisy
            decoded.append(y_hat)
            likelihoods.append(p_y)
        likelihoods = {"y": torch.cat(likelihoods, 1), "z": p_z}
        return {"y_hat": torch.cat(decoded, 1), "likelihoods": likelihoods}

    def nets(self) -> Iterator[nn.Module]:
        """Yields all modules whose weights the coder uses, except entropy models."""
        yield self.h_s
        for group in self.groups():
            yield from group.nets()

    def _training_z(self, z: Tensor) -> tuple[Tensor, Tensor]:
        # z is not rounded to the medians, because the quantiles belong to the auxiliary
        # loss. We do not call the bottleneck's forward: with it a GPU waits 13 times.
        bottleneck, channels_first = self.bottleneck, z.transpose(0, 1)
        noisy = bottleneck.quantize(channels_first.flatten(1)[:, None], "noise")
        p_z = private.compute_bottleneck_likelihood(bottleneck, noisy)
        if bottleneck.use_likelihood_bound:
            p_z = bottleneck.likelihood_lower_bound(p_z)
        restored = (x.view(channels_first.shape).transpose(0, 1) for x in (noisy, p_z))
        z_hat, p_z = (x.contiguous() for x in restored)
        return z_hat, p_z


class ScaleFamily(Family):
    """Scale hyperprior (Ballé 2018): zero means."""

    def hyper_analysis(
        self, y: Tensor, steps: list[QuantSteps] | None = None
    ) -> Tensor:
        return self.model.h_a(torch.abs(y))

    def groups(self) -> Iterator[Group]:
        channels, gaussian = slice(0, self.model.M), self.model.gaussian_conditional
        yield Group(channels, "raster", gaussian, (), means_first=None)


class MeanScaleFamily(Family):
    """Mean-scale hyperprior (Minnen 2018)."""

    def hyper_analysis(
        self, y: Tensor, steps: list[QuantSteps] | None = None
    ) -> Tensor:
        return self.model.h_a(y)

    def groups(self) -> Iterator[Group]:
        channels, gaussian = slice(0, self.model.M), self.model.gaussian_conditional
        yield Group(channels, "raster", gaussian, ())


class AutoregressiveFamily(MeanScaleFamily):
    """A causal context over y_hat beside the hyperprior (Minnen 2018, Cheng 2020)."""

    def groups(self) -> Iterator[Group]:
        model = self.model
        yield Group(
            slice(0, model.M),
            "wavefront",
            model.gaussian_conditional,
            (model.entropy_parameters,),
            parts=("hyper", "spatial"),
            spatial=model.context_prediction,
        )


class LatentCodecFamily(Family):
    """CompressAI's latent codecs: a hyperprior over checkerboards, maybe in groups."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        _check_class(model.latent_codec, HyperpriorLatentCodec)
        _check_class(self.hyper, HyperLatentCodec)

    @property
    def hyper(self) -> HyperLatentCodec:
        return _get_part(self.model.latent_codec, "hyper")

    @property
    def bottleneck(self) -> EntropyBottleneck:
        return self.hyper.entropy_bottleneck

    @property
    def h_s(self) -> nn.Module:
        return self.hyper.h_s

    def hyper_analysis(
        self, y: Tensor, steps: list[QuantSteps] | None = None
    ) -> Tensor:
        return self.hyper.h_a(y)

    def training(
        self,
        y: Tensor,
        steps: list[QuantSteps] | None = None,
        coded: Tensor | None = None,
    ) -> dict[str, Any]:
        if not (steps is None and coded is None):  # CompressAI has neither
            return super().training(y, steps, coded)
        z_hat, p_z = self._training_z(self.hyper_analysis(y))
        out = _get_part(self.model.latent_codec, "y")(y, self.h_s(z_hat))
        likelihoods = {"y": out["likelihoods"]["y"], "z": p_z}
        return {"y_hat": out["y_hat"], "likelihoods": likelihoods}

    def _training_z(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z_hat, p_z = super()._training_z(z)
        if self.hyper.quantizer == "ste":
            z_hat = rounded(z, private.get_medians(self.bottleneck).detach())
        return z_hat, p_z

    def groups(self) -> Iterator[Group]:
        y = _get_part(self.model.latent_codec, "y")
        if not isinstance(y, ChannelGroupsLatentCodec):
            yield _make_checkerboard_group(y, 0)
            return
        _check_class(y, ChannelGroupsLatentCodec)
        first = 0
        for k, count in enumerate(y.groups):
            group = _make_checkerboard_group(y.latent_codec[f"y{k}"], first)
            if k:
                parts = ("spatial", "channels", "hyper")
                across = y.channel_context[f"y{k}"]
                group = replace(group, across=across, parts=parts)
            first += count
            yield group


def _make_checkerboard_group(y: nn.Module, first: int) -> Group:
    _check_class(y, CheckerboardLatentCodec)
    if y.anchor_parity != "even":
        raise TypeError("no exact coding is known for a checkerboard of odd anchors")
    inner = _get_part(y, "y")
    _check_class(inner, GaussianConditionalLatentCodec)
    if set(inner.chunks) != {"scales", "means"}:
        raise TypeError(
            "no exact coding is known for latents that are not conditionally Gaussian "
            f"with scales and means: {inner}"
        )
    return Group(
        slice(first, first + y.context_prediction.in_channels),
        "checkerboard",
        inner.gaussian_conditional,
        (y.entropy_parameters, inner.entropy_parameters),
        parts=("spatial", "hyper"),
        means_first=inner.chunks[0] == "means",
        spatial=y.context_prediction,
    )


def _get_part(codec: nn.Module, key: str) -> nn.Module:
    # CompressAI keeps parts in a plain dict, which replicas share with their original.
    return getattr(codec, key) if getattr(codec, "_is_replica", False) else codec[key]


def _check_class(module: nn.Module, known: type[nn.Module]) -> None:
    """Checks that a module computes what CompressAI's class does, as the coder assumes.

    Raises:
        TypeError: If a method is overridden.
    """
    kind = type(module)
    if not isinstance(module, known) or any(
        getattr(kind, name, None) is not getattr(known, name, None)
        or name in vars(module)
        for name in private.LATENT_CODEC_METHODS
    ):
        raise TypeError(
            f"no exact coding is known for a {type(module).__name__} where CompressAI "
            f"has its {known.__name__}; offer an entropy_family of your own "
            "(compressai_hm.entropy.Family)"
        )


def rounded(x: Tensor, means: Tensor, step: Tensor | float = 1.0) -> Tensor:
    """Returns the value of means + n step nearest to x, straight through in gradients.

    Args:
        x: Values, ``(N, C, h, w)``.
        means: Means; broadcast with x, without gradients.
        step: Quantization step; broadcasts with x. Defaults to 1.0.
    """
    means = means.detach()
    return quantize_ste((x - means) / step) * step + means


def _code_latent(
    gaussian: GaussianConditional,
    y: Tensor,
    scale: Tensor,
    mean: Tensor,
    step: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """Computes y_hat and likelihoods of coded symbols, with gradients for all inputs.

    The gradient of y_hat goes straight through to y, and to the mean, because a symbol
    0 decodes to the mean. The likelihoods give scale and mean their exact gradient, and
    y the gradient of a noisy latent.
    """
    y_hat = rounded(y, mean, step)
    scale, center = scale / step, mean / step
    symbols = y_hat.detach() / step
    coded = private.compute_gaussian_likelihood(gaussian, symbols, scale, center)
    if gaussian.use_likelihood_bound:
        coded = gaussian.likelihood_lower_bound(coded)
    _, noisy = gaussian(y / step, scale.detach(), means=center.detach(), training=True)
    return y_hat + (mean - mean.detach()), coded * (noisy / noisy.detach())


def scale_and_mean(
    params: Tensor, means_first: bool | None, dim: int
) -> tuple[Tensor, Tensor]:
    """Returns the scales and the means in the output of a group's networks.

    Args:
        params: The output; it has twice the group's channels, or without means as many.
        means_first: Whether the means precede the scales. None says that there are no
            means, which are then 0.
        dim: The axis of the channels.
    """
    if means_first is None:
        return params, torch.zeros_like(params)
    first, second = params.chunk(2, dim)
    return (second, first) if means_first else (first, second)


def _predict(group: Group, parts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    params = torch.cat([parts[part] for part in group.parts], 1)
    for net in group.parameters:
        params = net(params)
    return scale_and_mean(params, group.means_first, 1)


def _predict_in_two_passes(
    group: Group, y: Tensor, step: Tensor | float, parts: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Predicts a checkerboard: anchors without context, the others from the anchors."""
    rows, cols = (torch.arange(side, device=y.device) for side in y.shape[-2:])
    anchor = (rows[:, None] + cols) % 2 == 0
    none = y.new_zeros(len(y), group.spatial.out_channels, *y.shape[-2:])
    first = _predict(group, {**parts, "spatial": none})
    context = group.spatial(torch.where(anchor, rounded(y, first[1], step), 0))
    second = _predict(group, {**parts, "spatial": context})
    halves = zip(first, second, strict=True)
    scale, mean = (torch.where(anchor, a, b) for a, b in halves)
    return scale, mean


FAMILIES: dict[Any, type[Family]] = {
    ScaleHyperprior.forward: ScaleFamily,
    MeanScaleHyperprior.forward: MeanScaleFamily,
    JointAutoregressiveHierarchicalPriors.forward: AutoregressiveFamily,
    SimpleVAECompressionModel.forward: LatentCodecFamily,
}
"""Families by the CompressAI ``forward`` whose entropy part they describe."""


def find_family(model: nn.Module) -> Family:
    """Returns the family of a model, from ``entropy_family`` or its base's ``forward``.

    Args:
        model: The model.

    Raises:
        TypeError: If there is none; the message says what the model must offer.
    """
    family = getattr(model, "entropy_family", None)
    if family is not None:
        return family(model)
    for base in type(model).__mro__:
        forward = base.__dict__.get("forward")
        if forward in FAMILIES:
            return FAMILIES[forward](model)
        if forward is not None and not base.__dict__.get("_uses_family"):
            break
    known = ", ".join(forward.__qualname__ for forward in FAMILIES)
    raise TypeError(
        f"{type(model).__name__} codes its latent in a forward that is not known here "
        f"({base.__module__}.{base.__qualname__}.forward; known are {known}). Offer a "
        "class attribute entropy_family, a compressai_hm.entropy.Family: "
        "hyper_analysis (z of y) and groups (how y is predicted and coded)"
    )
