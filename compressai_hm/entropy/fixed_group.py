"""Prediction of a group of y's channels in integers."""

from collections.abc import Iterator, Mapping

import torch
import torch.nn as nn
from torch import Tensor

from .coding_tables import check_scales, default_scale_table
from .families import Group
from .fixed_point import FRACTION, FixedConv, FixedNet, rounded_
from .range_coder import DeviceTables, Tables


class FixedGroup:
    """A :class:`Group` in integers.

    Args:
        group: The group.
        buffers: Table buffers of its conditional Gaussian, on the CPU.

    Raises:
        ValueError: If weights or tables are broken.
        TypeError: If a network has no exact counterpart.
    """

    def __init__(self, group: Group, buffers: Mapping[str, Tensor]):
        self.channels, self.parts = group.channels, group.parts
        self.order, self.means_first = group.order, group.means_first
        self.log_scales, self.skips = group.log_scales, group.skips
        self.across = FixedNet(group.across) if group.across else None
        self.spatial = None
        if group.spatial is not None:
            self.spatial = _make_context(group.spatial, group.order == "wavefront")
        self.parameters = FixedNet(*group.parameters)
        self.tables = Tables(buffers)
        scales = buffers["scale_table"].double()
        check_scales(scales)
        if len(scales) != len(self.tables.sizes):
            raise ValueError(
                f"the conditional Gaussian has {len(scales)} scales and tables of "
                f"{len(self.tables.sizes)}; make them anew with update(force=True)"
            )
        if group.log_scales:
            _check_default_scales(scales)
            count = torch.arange(len(scales) - 1, dtype=torch.float64)
            self.thresholds = FIRST_LOG + LOG_STEP * count
        else:
            # CompressAI's rule: the smallest scale of the table that is not below.
            self.thresholds = (scales[:-1] * 2**FRACTION).floor()
        self.taps = tuple(self.spatial.layers[0].taps) if self.spatial else ()
        self.move(torch.device("cpu"))

    def nets(self) -> Iterator[FixedNet]:
        """Yields the networks."""
        yield from filter(None, (self.across, self.spatial, self.parameters))

    def move(self, device: torch.device) -> None:
        """Moves networks and tables to a device.

        Args:
            device: The device; it must have float64.
        """
        for net in self.nets():
            net.move(device)
        self.thresholds = self.thresholds.to(device)
        self.cost = DeviceTables(self.tables, device)
        self.known = self.seen = None
        self._split_first_layer()

    def _split_first_layer(self) -> None:
        """Splits the first layer's columns: those of known parts, and of the context.

        The sums over known parts are then computed for many steps at once.
        """
        layers, edges = self.parameters.layers, (self.parts[0], self.parts[-1])
        if not layers or not isinstance(layers[0], FixedConv) or len(self.parts) == 1:
            return
        if "spatial" in edges:
            weight, seen = layers[0].weight, len(self.spatial.layers[0].bias)
            cut = seen if edges[0] == "spatial" else weight.shape[1] - seen
            columns = weight[:, :cut], weight[:, cut:]
            self.known, self.seen = columns[::-1] if edges[0] == "spatial" else columns

    def before(self, parts: list[Tensor]) -> list[Tensor]:
        """Computes as much of the prediction as depends on the known parts alone.

        Args:
            parts: Known parts of ``self.parts`` in their order, ``(rows, C)`` each.

        Returns:
            Tensors for :meth:`predicted`, with the same rows.
        """
        if self.known is None:
            return parts
        x = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
        return [nn.functional.linear(x, self.known, self.parameters.layers[0].bias)]

    def predicted(self, before: list[Tensor], context: Tensor | None) -> Tensor:
        """Computes the parameters of y.

        Args:
            before: Rows of what :meth:`before` returned.
            context: Output of the spatial context, ``(rows, C)``; None for zeros.

        Returns:
            Scales and means, or scales alone, ``(rows, C)``.
        """
        if self.known is not None:
            (x,), (_, *layers) = before, self.parameters.layers
            if context is not None:
                x = torch.addmm(x, context, self.seen.t())
            x = rounded_(x)
            for layer in layers:
                x = layer(x)
            return x
        if self.spatial:
            if context is None:
                width = len(self.spatial.layers[0].bias)
                context = before[0].new_zeros(len(before[0]), width)
            place = self.parts.index("spatial")
            before = [*before[:place], context, *before[place:]]
        x = torch.cat(before, -1) if len(before) > 1 else before[0]
        return self.parameters(x)

    def find_table(self, scale: Tensor) -> Tensor:
        """Finds the table of each scale: the number of thresholds below it.

        The division is exact enough, because a quotient of integers that is not an
        integer is farther from one than float64 rounds.

        Args:
            scale: Scales, or their logarithms where the group has ``log_scales``, as
                activations of any shape.

        Returns:
            Indices of tables, int64, like ``scale``.
        """
        if not self.log_scales:
            return torch.searchsorted(self.thresholds, scale.contiguous())
        index = (scale - FIRST_LOG).div_(LOG_STEP).ceil_()
        return index.clamp_(0, len(self.thresholds)).long()

    def literal(self) -> str:
        """Returns all but weights and tables as text, which fingerprints freeze."""
        channels, parts = self.channels, ", ".join(f"'{part}'" for part in self.parts)
        if len(self.parts) == 1:
            parts += ","
        return (
            f"((slice({channels.start}, {channels.stop}, None), ({parts}), "
            f"{self.means_first}), '{self.order}'{', log2' if self.log_scales else ''}"
            f"{', skips' if self.skips else ''})"
        )


FIRST_LOG, LOG_STEP = -50719, 2909
"""The first threshold of log2 of a scale and the distance between two, as activations.

CompressAI's scales have the same distance; the thresholds lie halfway between them."""


def _check_default_scales(scales: Tensor) -> None:
    expected = default_scale_table().double()
    if scales.shape != expected.shape or not torch.allclose(scales, expected):
        raise ValueError(
            "a codec whose networks give logarithms of scales has CompressAI's "
            "scale_table and no other; make it again with update(force=True)"
        )


def _make_context(context: nn.Module, causal: bool = False) -> FixedNet:
    """Makes the context's network.

    Raises:
        TypeError: If no order of coding suits it.
    """
    net = FixedNet(context)
    suits = len(net.layers) == 1 and net.layers[0].reach <= 2
    if suits and causal:
        suits = all(tap < (0, 0) for tap in net.layers[0].taps)
    if suits and not causal:  # neighbors of the other parity only
        suits = all((dy + dx) % 2 for dy, dx in net.layers[0].taps)
    if not suits:
        raise TypeError(
            f"no order of coding is known for the context {context}; there is for "
            "MaskedConv2d and CheckerboardMaskedConv2d of at most 5x5"
        )
    return net
