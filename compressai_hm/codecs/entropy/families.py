"""How each kind of CompressAI model codes its latent, written out.

A family says two things of a model's entropy part: how z comes of y, and in which
groups y is coded. Training, which has noise in place of a bitstream, and exact coding
follow from that. It holds no state: it is a view of one model's modules, made when it
is needed.
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

from .steps import Steps, step_values


@dataclass(frozen=True)
class Group:
    """Channels of y that are coded together, and the modules that predict them.

    Args:
        channels: Which.
        order: A name in ``order.ORDERS``.
        gaussian: Their conditional Gaussian.
        parameters: Modules in a chain, from the parts to scale and mean.
        parts: Inputs of that chain, concatenated: "hyper" (h_s of z_hat), "step" (what
            ``steps.told`` says), "channels" (``across``), "spatial" (``spatial``).
        means_first: Whether the means precede the scales; None without means.
        log_scales: Whether the chain gives log2 of the scales.
        skips: Whether places of the smallest scale are not coded: their symbols are 0.
        spatial: The convolution over what is decoded of these channels.
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
        """All modules whose weights the coder takes, but for the Gaussian."""
        yield from filter(None, (self.across, self.spatial, *self.parameters))


class Family(ABC):
    """What an HM model must offer to be trained and coded.

    A codec of no known family says its own as a class attribute::

        class HMMine(HumanMachineMixin, MyCodec):
            entropy_family = MyFamily

    Args:
        model: A CompressAI model.
    """

    trains_on_symbols = False
    """Whether :meth:`training` by itself sees what is coded."""

    def __init__(self, model: nn.Module):
        self.model = model

    @property
    def bottleneck(self) -> EntropyBottleneck:
        """What codes z."""
        return self.model.entropy_bottleneck

    @property
    def h_s(self) -> nn.Module:
        """From z_hat to side information, four times as large on each side."""
        return self.model.h_s

    @abstractmethod
    def hyper_analysis(self, y: Tensor, steps: list[Steps] | None = None) -> Tensor:
        """z of y: ``(N, M, 4 h, 4 w)`` to ``(N, C, h, w)``.

        Args:
            y: The latent.
            steps: Of each picture, for families that know the step.
        """

    @abstractmethod
    def groups(self) -> Iterator[Group]:
        """The groups of y in coding order.

        Raises:
            TypeError: For a structure that has no exact coder.
        """

    def training(
        self,
        y: Tensor,
        steps: list[Steps] | None = None,
        coded: Tensor | None = None,
    ) -> dict[str, Any]:
        """What training sees in place of a bitstream: likelihoods of noisy latents.

        At a step of 1 these are CompressAI's own y_hat and likelihoods, for all of its
        models. Contexts within a checkerboard, and over groups of channels, see rounded
        latents, as CompressAI's do.

        Args:
            y: ``(N, M, h, w)``.
            steps: Quantization steps of each picture; the noise is as wide. Defaults to
                None, 1 everywhere.
            coded: y_hat that coding gives, like y. Then z, y_hat, its likelihoods and
                its contexts are of rounded latents, as the coder's are, and noise gives
                y its gradient. Defaults to None: all of them are of noisy ones.

        Returns:
            ``y_hat``, like y, and ``likelihoods`` ``{"y", "z"}``.
        """
        step = 1.0 if steps is None else step_values(steps, y.shape[-2:]).to(y)
        z = self.hyper_analysis(y)
        z_hat, p_z = self._training_z(z)
        if coded is not None:
            z_hat = rounded(z, self.bottleneck._get_medians())
        side = self.h_s(z_hat)
        decoded, likelihoods = [], []
        for group in self.groups():
            own, noisy = y[:, group.channels], None
            parts = {"hyper": side}
            if group.across is not None:
                parts["channels"] = group.across(torch.cat(decoded, 1))
            if group.order == "checkerboard":
                scale, mean = _in_two_passes(group, own, step, parts)
            else:
                if group.spatial is not None and coded is None:
                    noisy = group.gaussian.quantize(own / step, "noise") * step
                    parts["spatial"] = group.spatial(noisy)
                elif group.spatial is not None:
                    known = own + (coded[:, group.channels] - own).detach()
                    parts["spatial"] = group.spatial(known)
                scale, mean = _predicted(group, parts)
            if coded is not None:
                y_hat, p_y = _mixed(group.gaussian, own, scale, mean, step)
            else:
                drawn, p_y = group.gaussian(own / step, scale / step, means=mean / step)
                if group.order == "checkerboard":
                    y_hat = rounded(own, mean, step)
                else:
                    y_hat = drawn * step if noisy is None else noisy
            decoded.append(y_hat)
            likelihoods.append(p_y)
        likelihoods = {"y": torch.cat(likelihoods, 1), "z": p_z}
        return {"y_hat": torch.cat(decoded, 1), "likelihoods": likelihoods}

    def nets(self) -> Iterator[nn.Module]:
        """All modules whose weights the exact coder takes, but entropy models."""
        yield self.h_s
        for group in self.groups():
            yield from group.nets()

    def _training_z(self, z: Tensor) -> tuple[Tensor, Tensor]:
        # Never the quantised medians: the quantiles belong to the auxiliary loss. And
        # not by the bottleneck's forward: a GPU would wait 13 times for its axes.
        bottleneck, channels_first = self.bottleneck, z.transpose(0, 1)
        noisy = bottleneck.quantize(channels_first.flatten(1)[:, None], "noise")
        p_z, *_ = bottleneck._likelihood(noisy)
        if bottleneck.use_likelihood_bound:
            p_z = bottleneck.likelihood_lower_bound(p_z)
        both = (x.view(channels_first.shape).transpose(0, 1) for x in (noisy, p_z))
        z_hat, p_z = (x.contiguous() for x in both)
        return z_hat, p_z


class ScaleFamily(Family):
    """Scale hyperprior (Ballé 2018): zero means."""

    def hyper_analysis(self, y: Tensor, steps: list[Steps] | None = None) -> Tensor:
        return self.model.h_a(torch.abs(y))

    def groups(self) -> Iterator[Group]:
        model = self.model
        own = slice(0, model.M)
        yield Group(own, "raster", model.gaussian_conditional, (), means_first=None)


class MeanScaleFamily(Family):
    """Mean-scale hyperprior (Minnen 2018)."""

    def hyper_analysis(self, y: Tensor, steps: list[Steps] | None = None) -> Tensor:
        return self.model.h_a(y)

    def groups(self) -> Iterator[Group]:
        own = slice(0, self.model.M)
        yield Group(own, "raster", self.model.gaussian_conditional, ())


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
        _check_own(model.latent_codec, HyperpriorLatentCodec)
        _check_own(self.hyper, HyperLatentCodec)

    @property
    def hyper(self) -> HyperLatentCodec:
        return _part(self.model.latent_codec, "hyper")

    @property
    def bottleneck(self) -> EntropyBottleneck:
        return self.hyper.entropy_bottleneck

    @property
    def h_s(self) -> nn.Module:
        return self.hyper.h_s

    def hyper_analysis(self, y: Tensor, steps: list[Steps] | None = None) -> Tensor:
        return self.hyper.h_a(y)

    def training(
        self,
        y: Tensor,
        steps: list[Steps] | None = None,
        coded: Tensor | None = None,
    ) -> dict[str, Any]:
        if not (steps is None and coded is None):  # which CompressAI's do not know
            return super().training(y, steps, coded)
        z_hat, p_z = self._training_z(self.hyper_analysis(y))
        out = _part(self.model.latent_codec, "y")(y, self.h_s(z_hat))
        likelihoods = {"y": out["likelihoods"]["y"], "z": p_z}
        return {"y_hat": out["y_hat"], "likelihoods": likelihoods}

    def _training_z(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z_hat, p_z = super()._training_z(z)
        if self.hyper.quantizer == "ste":
            z_hat = rounded(z, self.bottleneck._get_medians().detach())
        return z_hat, p_z

    def groups(self) -> Iterator[Group]:
        y = _part(self.model.latent_codec, "y")
        if not isinstance(y, ChannelGroupsLatentCodec):
            yield _checkerboard(y, 0)
            return
        _check_own(y, ChannelGroupsLatentCodec)
        first = 0
        for k, count in enumerate(y.groups):
            group = _checkerboard(y.latent_codec[f"y{k}"], first)
            if k:
                parts = ("spatial", "channels", "hyper")
                across = y.channel_context[f"y{k}"]
                group = replace(group, across=across, parts=parts)
            first += count
            yield group


def _checkerboard(y: nn.Module, first: int) -> Group:
    _check_own(y, CheckerboardLatentCodec)
    if y.anchor_parity != "even":
        raise TypeError("no exact coding is known for a checkerboard of odd anchors")
    inner = _part(y, "y")
    _check_own(inner, GaussianConditionalLatentCodec)
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


_COMPUTES = ("forward", "_chunk", "merge", "merge_y", "merge_params", "_get_ctx_params")


def _part(codec: nn.Module, key: str) -> nn.Module:
    # CompressAI keeps parts in a plain dict, which replicas share with the original.
    return getattr(codec, key) if getattr(codec, "_is_replica", False) else codec[key]


def _check_own(module: nn.Module, known: type[nn.Module]) -> None:
    """What computes otherwise than CompressAI's would be coded as if it did not."""
    kind = type(module)
    if not isinstance(module, known) or any(
        getattr(kind, name, None) is not getattr(known, name, None)
        or name in vars(module)
        for name in _COMPUTES
    ):
        raise TypeError(
            f"no exact coding is known for a {type(module).__name__} where CompressAI "
            f"has its {known.__name__}; offer an entropy_family of your own "
            "(compressai_hm.codecs.entropy.Family)"
        )


def rounded(x: Tensor, means: Tensor, step: Tensor | float = 1.0) -> Tensor:
    """The nearest to x of means + n step, with gradients straight through."""
    means = means.detach()
    return quantize_ste((x - means) / step) * step + means


def _mixed(
    gaussian: GaussianConditional,
    y: Tensor,
    scale: Tensor,
    mean: Tensor,
    step: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """y_hat and likelihoods of what is coded, with gradients for all that make it.

    Of y_hat: straight through to y, and to the mean, which is what is decoded of a
    symbol 0. Of the likelihoods: their own to scale and mean, to y that of noise.
    """
    y_hat = rounded(y, mean, step)
    scale, at = scale / step, mean / step
    coded = gaussian._likelihood(y_hat.detach() / step, scale, at)
    if gaussian.use_likelihood_bound:
        coded = gaussian.likelihood_lower_bound(coded)
    _, noisy = gaussian(y / step, scale.detach(), means=at.detach(), training=True)
    return y_hat + (mean - mean.detach()), coded * (noisy / noisy.detach())


def scale_and_mean(
    params: Tensor, means_first: bool | None, dim: int
) -> tuple[Tensor, Tensor]:
    """The halves of what a group's networks give; means are 0 where there are none.

    Args:
        params: With twice the group's channels, or once without means.
        means_first: See :class:`Group`.
        dim: Of the channels.
    """
    if means_first is None:
        return params, torch.zeros_like(params)
    first, second = params.chunk(2, dim)
    return (second, first) if means_first else (first, second)


def _predicted(group: Group, parts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    params = torch.cat([parts[part] for part in group.parts], 1)
    for net in group.parameters:
        params = net(params)
    return scale_and_mean(params, group.means_first, 1)


def _in_two_passes(
    group: Group, y: Tensor, step: Tensor | float, parts: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Of a checkerboard: its anchors see no context, the others the anchors."""
    rows, cols = (torch.arange(side, device=y.device) for side in y.shape[-2:])
    anchor = (rows[:, None] + cols) % 2 == 0
    none = y.new_zeros(len(y), group.spatial.out_channels, *y.shape[-2:])
    first = _predicted(group, {**parts, "spatial": none})
    context = group.spatial(torch.where(anchor, rounded(y, first[1], step), 0))
    second = _predicted(group, {**parts, "spatial": context})
    both = zip(first, second, strict=True)
    scale, mean = (torch.where(anchor, a, b) for a, b in both)
    return scale, mean


FAMILIES: dict[Any, type[Family]] = {
    ScaleHyperprior.forward: ScaleFamily,
    MeanScaleHyperprior.forward: MeanScaleFamily,
    JointAutoregressiveHierarchicalPriors.forward: AutoregressiveFamily,
    SimpleVAECompressionModel.forward: LatentCodecFamily,
}
"""By the CompressAI ``forward`` whose entropy part they write out."""


def family_of(model: nn.Module) -> Family:
    """The family of a model, by its ``entropy_family`` or by its base's ``forward``.

    Raises:
        TypeError: If there is none; says what the model must offer.
    """
    own = getattr(model, "entropy_family", None)
    if own is not None:
        return own(model)
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
        "class attribute entropy_family, a compressai_hm.codecs.entropy.Family: "
        "hyper_analysis (z of y) and groups (how y is predicted and coded)"
    )
