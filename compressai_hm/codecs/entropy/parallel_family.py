"""hm-compact's entropy part: groups of channels times a checkerboard, told the step.

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

from .bottleneck import SteppedBottleneck
from .families import Family, Group, rounded
from .fixed_group import FIRST_LOG
from .fixed_point import FRACTION
from .steps import Steps, step_values, told, z_class, z_widths


class ParallelFamily(Family):
    """Groups of channels, each a checkerboard, that are told the quantization step.

    ::

        told ───────────────┬───────────────────────────┐
        y ──► h_a ──► z_hat ─► h_s ──► hyper ───────────┤
        groups before ──► across ──► channels ──────────┼─► parameters ─► log2 scale,
        this group's anchors ──► spatial (others only) ─┘                 mean

    The model has ``h_a``, which takes y and what it is told, ``h_s`` and ``groups``,
    modules with ``channels``, ``across`` (None of the first), ``spatial`` and
    ``predict``. Training sees what is coded, in floating point: rounding with
    gradients that go straight through, anchors first, and z in the width of its step.
    """

    trains_on_symbols = True

    @property
    def bottleneck(self) -> SteppedBottleneck:
        return self.model.entropy_bottleneck

    def hyper_analysis(self, y: Tensor, steps: list[Steps] | None = None) -> Tensor:
        return self.model.h_a(torch.cat([y, _planes(y, steps)[:, 2:]], 1))

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
        steps: list[Steps] | None = None,
        coded: Tensor | None = None,
    ) -> dict[str, Any]:
        step, width, *known = _planes(y, steps).split(1, 1)
        z = self.model.h_a(torch.cat([y, *known], 1))
        z_hat, p_z = self._training_z_at(z, width[..., :1, :1])
        y_halves, step_halves = _halves(y), _halves(step)
        octave_halves = _halves(known[0])
        known = torch.cat([self.h_s(z_hat), *known], 1)
        decoded, likelihoods = [], []
        for group in self.groups():
            inputs = [known]
            if group.across is not None:
                inputs.append(group.across(torch.cat(decoded, 1)))
            first, *rest = group.parameters[0]
            cut = first.in_channels - group.spatial.out_channels
            on_known = F.conv2d(torch.cat(inputs, 1), first.weight[:, :cut], first.bias)
            values, masses = [], []
            for parity, x in enumerate(_halves(on_known)):
                if parity:
                    anchors = _joined(values[0], torch.zeros_like(values[0]))
                    seen = _halves(group.spatial(anchors))[1]
                    x = x + F.conv2d(seen, first.weight[:, cut:])
                for layer in rest:
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
            decoded.append(_joined(*values))
            likelihoods.append(_joined(*masses))
        likelihoods = {"y": torch.cat(likelihoods, 1), "z": p_z}
        return {"y_hat": torch.cat(decoded, 1), "likelihoods": likelihoods}

    def _training_z_at(self, z: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        bottleneck = self.bottleneck
        z_hat = rounded(z, bottleneck._get_medians()[None], width)
        half = (width / 2).expand(-1, 1, *z.shape[2:]).transpose(0, 1).reshape(1, 1, -1)

        def mass(at: Tensor) -> Tensor:
            at = at.transpose(0, 1)
            p, *_ = bottleneck.interval(at.flatten(1)[:, None], half)
            if bottleneck.use_likelihood_bound:
                p = bottleneck.likelihood_lower_bound(p)
            return p.view(at.shape).transpose(0, 1)

        # The density learns of noise, too: between symbols it would be anything.
        noisy = mass(z + (torch.rand_like(z) - 0.5) * width)
        with torch.no_grad():
            coded = mass(z_hat)
        return z_hat, coded * (noisy / noisy.detach())


def _planes(y: Tensor, steps: list[Steps] | None) -> Tensor:
    """The step, z's width and what networks are told, ``(N, 4, h, w)``.

    In one tensor, for which a GPU waits once.
    """
    size = tuple(y.shape[-2:])
    if steps is None:
        ones, zeros = y.new_ones(len(y), 2, *size), y.new_zeros(len(y), 2, *size)
        return torch.cat([ones, zeros], 1)
    width = z_widths()[[z_class(own) for own in steps]]
    width = width.view(-1, 1, 1, 1).expand(-1, 1, *size)
    fixed = torch.cat([width, told(steps, len(steps), size)], 1) * 2.0**-FRACTION
    return torch.cat([step_values(steps, size), fixed], 1).to(y)


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """A checkerboard's anchors and others, ``(N, C, h, w / 2)`` each."""
    even, odd = (x[..., i::2, :].unflatten(-1, (-1, 2)) for i in range(2))
    return tuple(
        torch.stack([even[..., i], odd[..., 1 - i]], -2).flatten(-3, -2)
        for i in range(2)
    )


def _joined(anchors: Tensor, others: Tensor) -> Tensor:
    """The reverse of :func:`_halves`."""
    rows = [
        torch.stack(both, -1).flatten(-2)
        for both in (
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
    """y_hat and likelihoods of what is coded, as training with "ste" has them.

    y_hat follows y with a slope of one, and not the mean, which only moves the
    thresholds: if it followed both, one error would push twice, and trainings ran away
    after some ten thousand steps. It follows y where nothing is coded, too; otherwise
    what is not coded would never learn to be.

    ``log_scale`` is in steps. Its bound is taken before it is a scale, so that one far
    below still has a gradient; and the likelihood of what is not coded is that of what
    would be, so that a scale can rise again.
    """
    q = torch.round((y - mean).detach() / step)
    coded = torch.where(log_scale.detach() > _SKIPPED, q, 0)
    y_hat = (coded * step + mean).detach() + (y - y.detach())
    least = gaussian.lower_bound_scale.bound.log2()
    log_scale = LowerBoundFunction.apply(log_scale.clamp(max=_MOST_LOG_SCALE), least)
    scale = torch.exp2(log_scale)
    coded = _mass(q - (mean - mean.detach()) / step, scale)
    if gaussian.use_likelihood_bound:
        coded = gaussian.likelihood_lower_bound(coded)
    noisy = _mass((y - mean.detach()) / step + torch.rand_like(y) - 0.5, scale.detach())
    noisy = gaussian.likelihood_lower_bound(noisy)
    return y_hat, coded * (noisy / noisy.detach())


_MOST_LOG_SCALE = 8
"""Tables have scales up to 256."""

_SKIPPED = FIRST_LOG * 2.0**-FRACTION
"""Up to here log2 of a scale gives the smallest one."""


def _mass(x: Tensor, scale: Tensor) -> Tensor:
    """Of a Gaussian over an interval of width 1 about x."""
    x, over = x.abs(), 2**-0.5 / scale
    return (torch.erfc((x - 0.5) * over) - torch.erfc((x + 0.5) * over)) / 2
