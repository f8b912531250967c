"""hm-compact's entropy part: groups of channels times a checkerboard, given the step.

All positions of a pass are coded at once, in two passes a group (after D. He et al.,
"ELIC: Efficient Learned Image Compression with Unevenly Grouped Space-Channel
Contextual Adaptive Coding", CVPR 2022).
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from compressai.entropy_models import GaussianConditional
from compressai.ops.bound_ops import LowerBoundFunction
from torch import Tensor

from ..compat.compressai_private import get_medians
from .bottleneck import SteppedBottleneck
from .families import Family, Group, rounded
from .fixed_group import FIRST_LOG
from .fixed_point import FRACTION
from .steps import QuantSteps, step_features, step_values, z_class, z_widths


class ParallelFamily(Family):
    """Groups of channels, each a checkerboard, whose networks know the step.

    ::

        step ───────────────┬───────────────────────────┐
        y ──► h_a ──► z_hat ─► h_s ──► hyper ───────────┤
        groups before ──► across ──► channels ──────────┼─► parameters ─► log2 scale,
        this group's anchors ──► spatial (others only) ─┘                 mean

    The model has ``h_a``, which takes y and ``steps.step_features``, ``h_s``, and
    ``groups``, modules with ``channels``, ``across`` (None for the first group),
    ``spatial`` and ``predict``. Training computes in floating point what is coded, with
    rounding whose gradients go straight through, anchors first, and z of the step's
    width.
    """

    trains_on_symbols = True

    @property
    def bottleneck(self) -> SteppedBottleneck:
        return self.model.entropy_bottleneck

    def hyper_analysis(
        self, y: Tensor, steps: list[QuantSteps] | None = None
    ) -> Tensor:
        return self.model.h_a(torch.cat([y, _make_planes(y, steps)[:, 2:]], 1))

    def groups(self) -> Iterator[Group]:
        first = 0
        for group in self.model.groups:
            across = ("channels",) if group.across is not None else ()
            yield Group(
                slice(first, first + group.channels),
                "checkerboard",
                self.model.gaussian_conditional,
                (group.predict,),
                parts=("hyper", "step", *across, "spatial"),
                log_scales=True,
                skips=True,
                spatial=group.spatial,
                across=group.across,
            )
            first += group.channels

    def training(
        self,
        y: Tensor,
        steps: list[QuantSteps] | None = None,
        coded: Tensor | None = None,
    ) -> dict[str, Any]:
        step, width, *known = _make_planes(y, steps).split(1, 1)
        z = self.model.h_a(torch.cat([y, *known], 1))
        z_hat, p_z = self._training_z_at(z, width[..., :1, :1])
        y_halves, step_halves = _split_checkerboard(y), _split_checkerboard(step)
        octave_halves = _split_checkerboard(known[0])
        known = torch.cat([self.h_s(z_hat), *known], 1)
        decoded, likelihoods = [], []
        for group in self.groups():
            inputs = [known]
            if group.across is not None:
                inputs.append(group.across(torch.cat(decoded, 1)))
            first, *layers = group.parameters[0]
            cut = first.in_channels - group.spatial.out_channels
            on_known = F.conv2d(torch.cat(inputs, 1), first.weight[:, :cut], first.bias)
            values, masses = [], []
            for parity, x in enumerate(_split_checkerboard(on_known)):
                if parity:
                    anchors = _join_checkerboard(values[0], torch.zeros_like(values[0]))
                    seen = _split_checkerboard(group.spatial(anchors))[1]
                    x = x + F.conv2d(seen, first.weight[:, cut:])
                for layer in layers:
                    x = layer(x)
                log_scale, mean = x.chunk(2, 1)
                value, p = _straight(
                    group.gaussian,
                    y_halves[parity][:, group.channels],
                    log_scale - octave_halves[parity],
                    mean,
                    step_halves[parity],
                )
                values.append(value)
                masses.append(p)
            decoded.append(_join_checkerboard(*values))
            likelihoods.append(_join_checkerboard(*masses))
        likelihoods = {"y": torch.cat(likelihoods, 1), "z": p_z}
        return {"y_hat": torch.cat(decoded, 1), "likelihoods": likelihoods}

    def _training_z_at(self, z: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        bottleneck = self.bottleneck
        z_hat = rounded(z, get_medians(bottleneck)[None], width)
        half = (width / 2).expand(-1, 1, *z.shape[2:]).transpose(0, 1).reshape(1, 1, -1)

        def integrate(center: Tensor) -> Tensor:
            center = center.transpose(0, 1)
            p, *_ = bottleneck.interval(center.flatten(1)[:, None], half)
            if bottleneck.use_likelihood_bound:
                p = bottleneck.likelihood_lower_bound(p)
            return p.view(center.shape).transpose(0, 1)

        # The gradient is that of noisy values: trained on symbols alone, the density
        # between them would be arbitrary.
        noisy = integrate(z + (torch.rand_like(z) - 0.5) * width)
        with torch.no_grad():
            coded = integrate(z_hat)
        return z_hat, coded * (noisy / noisy.detach())


def _make_planes(y: Tensor, steps: list[QuantSteps] | None) -> Tensor:
    """Returns the step, z's width and ``step_features``, ``(N, 4, h, w)``.

    They are one tensor, so that a GPU waits only once.
    """
    size = tuple(y.shape[-2:])
    if steps is None:
        ones, zeros = y.new_ones(len(y), 2, *size), y.new_zeros(len(y), 2, *size)
        return torch.cat([ones, zeros], 1)
    width = z_widths()[[z_class(step) for step in steps]]
    width = width.view(-1, 1, 1, 1).expand(-1, 1, *size)
    fixed = torch.cat([width, step_features(steps, len(steps), size)], 1)
    return torch.cat([step_values(steps, size), fixed * 2.0**-FRACTION], 1).to(y)


def _split_checkerboard(x: Tensor) -> tuple[Tensor, Tensor]:
    """Splits a checkerboard into anchors and others, ``(N, C, h, w / 2)`` each."""
    even, odd = (x[..., i::2, :].unflatten(-1, (-1, 2)) for i in range(2))
    return tuple(
        torch.stack([even[..., i], odd[..., 1 - i]], -2).flatten(-3, -2)
        for i in range(2)
    )


def _join_checkerboard(anchors: Tensor, others: Tensor) -> Tensor:
    """Joins anchors and others to a checkerboard."""
    rows = [
        torch.stack(pair, -1).flatten(-2)
        for pair in (
            (anchors[..., 0::2, :], others[..., 0::2, :]),
            (others[..., 1::2, :], anchors[..., 1::2, :]),
        )
    ]
    return torch.stack(rows, -2).flatten(-3, -2)


def _straight(
    gaussian: GaussianConditional,
    y: Tensor,
    log_scale: Tensor,
    mean: Tensor,
    step: Tensor,
) -> tuple[Tensor, Tensor]:
    """Computes y_hat and likelihoods of coded symbols, for training with "ste".

    y_hat has a slope of one over y, and of zero over the mean, which only moves the
    thresholds: with slopes over both, an error would push twice, and trainings diverged
    after some ten thousand steps. y_hat has this slope also where nothing is coded;
    otherwise such positions would never start to be coded. The rate has its slope over
    the mean by noisy values, because a symbol of 0 has none, and most symbols are 0.

    ``log_scale`` is in steps. It is bounded before it becomes a scale, so that one far
    below the bound still has a gradient. Where nothing is coded, the likelihood is that
    of the symbol that would be coded, so that the scale can rise again.
    """
    q = torch.round((y - mean).detach() / step)
    coded = torch.where(log_scale.detach() > _SKIPPED, q, 0)
    y_hat = (coded * step + mean).detach() + (y - y.detach())
    least = gaussian.lower_bound_scale.bound.log2()
    log_scale = LowerBoundFunction.apply(log_scale.clamp(max=_MOST_LOG_SCALE), least)
    scale = torch.exp2(log_scale)
    coded = _integrate_gaussian(q, scale)
    if gaussian.use_likelihood_bound:
        coded = gaussian.likelihood_lower_bound(coded)
    noisy = _integrate_gaussian(
        (y - mean) / step + torch.rand_like(y) - 0.5, scale.detach()
    )
    noisy = gaussian.likelihood_lower_bound(noisy)
    return y_hat, coded * (noisy / noisy.detach())


_MOST_LOG_SCALE = 8
"""log2 of the largest scale of the tables."""

_SKIPPED = FIRST_LOG * 2.0**-FRACTION
"""A log2 of a scale up to this selects the smallest scale, which is not coded."""


def _integrate_gaussian(x: Tensor, scale: Tensor) -> Tensor:
    """Integrates a Gaussian over an interval of width 1 around x."""
    x, factor = x.abs(), 2**-0.5 / scale
    return (torch.erfc((x - 0.5) * factor) - torch.erfc((x + 0.5) * factor)) / 2
