"""HM models: a CompressAI codec whose one bitstream gives x_hat and x_bar.

::

         ┌───┐ y ┌────────────────────┐ y_hat ┌───┐ x_hat (humans)
    x ─►─┤g_a├───┤ the base's entropy ├───►───┤g_s├──┬──►
         └───┘   │ model, ONE stream  │       └───┘  │ ┌───┐ x_bar (machines)
                 └────────────────────┘              └─┤g_t├──►
                                                       └───┘
"""

import contextlib
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck
from compressai.layers import MaskedConv2d, conv3x3
from compressai.models import (
    Cheng2020Anchor,
    Cheng2020AnchorCheckerboard,
    Cheng2020Attention,
    Elic2022Official,
    JointAutoregressiveHierarchicalPriors,
    MeanScaleHyperprior,
    ScaleHyperprior,
    SimpleVAECompressionModel,
)
from compressai.models.utils import deconv
from compressai.registry import register_model
from torch import Tensor

from .adaptation import DynamicAdaptation, ResidualBlock
from .checks import check_pictures, check_views
from .entropy import BitstreamError, Coded
from .tables import TABLE_BUFFERS, TablesMixin
from .tiles import tiled

STRIDE = 64
"""Pictures are padded to a multiple of this: 16 for y times 4 for z."""


def picture_bits(
    likelihoods: dict[str, Tensor], sizes: list[tuple[int, int]]
) -> Tensor:
    """Bits of each picture of a padded batch, without the bits of its padding.

    Counted are the latents that the picture would have if it were coded alone: those
    of its own size padded to 64. The sum is taken in float32 also under autocast.

    Args:
        likelihoods: p(y_hat) and p(z_hat), each ``(N, C, h, w)``, of the batch.
        sizes: (H, W) of each picture in pixels, without padding.

    Returns:
        Bits, ``(N,)``, float32.
    """
    z_rows, z_cols = likelihoods["z"].shape[-2:]
    bits = []
    for i, (height, width) in enumerate(sizes):
        rows, cols = -(-height // STRIDE), -(-width // STRIDE)
        own = (
            p[i, :, : p.shape[-2] // z_rows * rows, : p.shape[-1] // z_cols * cols]
            for p in likelihoods.values()
        )
        bits.append(sum(-p.float().log2().sum() for p in own))
    return torch.stack(bits)


class HumanMachineMixin(TablesMixin):
    """Turns a CompressAI image codec with ``g_a`` and ``g_s`` into an HM model.

    Put it before the codec among the bases, and register the class::

        @register_model("hm-mine")
        class HMMine(HumanMachineMixin, MyCodec):
            pass

    Args:
        g_t_width: Channels of g_t; 0 leaves g_t out (x_bar is then x_hat).
            Defaults to 32.
        g_t_downscale: See :class:`DynamicAdaptation`. Defaults to 1.
        **kwargs: The base's own.
    """

    def __init__(self, *args, g_t_width: int = 32, g_t_downscale: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        self.g_t = (
            DynamicAdaptation(g_t_width, g_t_downscale) if g_t_width else nn.Identity()
        )

    mixed_quantisation = False
    """Trains g_s and g_t on rounded latents and the entropy model on noisy ones.

    They then see in training what they decode (D. Minnen and S. Singh, "Channel-Wise
    Autoregressive Entropy Models for Learned Image Compression", 2020). Noise for both
    is CompressAI's way.
    """

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Codes without a bitstream.

        In eval mode x_hat, x_bar and bits are those of the coded path. In training the
        quantisation is the base's noise, so the rate is an estimate.

        Args:
            x: RGB in [0, 1], ``(N, 3, H, W)``, any H and W from 1.

        Returns:
            ``x_hat`` and ``x_bar`` (``(N, 3, H, W)``, unclamped) and
            ``likelihoods`` (``{"y": (N, M, h, w), "z": (N, C, h', w')}``).

        Raises:
            ValueError: If x is not such a tensor or leaves [0, 1].
        """
        latent = self.code_latent(self.analyse(x))
        views = self.synthesise(latent["y_hat"], x.shape[-2:])
        return {**views, "likelihoods": latent["likelihoods"]}

    def analyse(self, x: Tensor) -> Tensor:
        """y = g_a(x), after the checks and the padding by replication to 64.

        Args:
            x: RGB in [0, 1], ``(N, 3, H, W)``.

        Returns:
            y, ``(N, M, h, w)`` with h = 4 ceil(H / 64).

        Raises:
            ValueError: See :meth:`forward`.
        """
        check_pictures(x)
        height, width = x.shape[-2:]
        pad = (0, -width % STRIDE, 0, -height % STRIDE)
        if any(pad):
            x = F.pad(x, pad, mode="replicate")
        y = self._each(self.g_a, x, 1 / 16)
        _check_stride("g_a", x, y, 16)
        return y

    def _each(self, transform: nn.Module, x: Tensor, scale: float = 1) -> Tensor:
        """In eval mode one picture at a time: its numbers depend on no other's.

        Args:
            transform: g_a, g_s, g_t or h_a.
            x: ``(N, C, h, w)``.
            scale: The sides of the output over those of x.
        """
        if self.training:
            return transform(x)
        outs = [tiled(transform, picture, scale) for picture in x.split(1)]
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def code_latent(self, y: Tensor) -> dict[str, Any]:
        """The entropy model alone, in its own precision also under autocast.

        In eval mode this is what coding gives, to the symbol. In training the base's
        noise stands for it; there the rate does not move the entropy bottleneck's
        quantiles: they belong to ``aux_loss()`` only, as with CompressAI's two
        optimizers.

        Args:
            y: ``(N, M, h, w)``.

        Returns:
            ``y_hat``, like y, and ``likelihoods``.
        """
        y = self._own_precision(y)
        if not self.training:
            return self.latent_coder().measure(y, self._hyper_analysis(y))
        tap = _Tap()
        with (
            torch.autocast(y.device.type, enabled=False),
            _replaced(self, g_a=_Constant(y), g_s=tap),
            _frozen_quantiles(self),
            _means_seen(self) as means,
        ):
            out = super().forward(y)
        y_hat = tap.seen
        if self.mixed_quantisation:
            mean = means[0] if means else 0
            y_hat = y + (torch.round(y - mean) + mean - y).detach()
        return {"y_hat": y_hat, "likelihoods": out["likelihoods"]}

    @torch.no_grad()
    def _hyper_analysis(self, y: Tensor) -> Tensor:
        """z of y: what the base's own forward gives to its entropy bottleneck."""
        holder = self
        if isinstance(self, SimpleVAECompressionModel):
            holder = self.latent_codec["hyper"]
        found = []
        for picture in y.split(1):
            with (
                torch.autocast(y.device.type, enabled=False),
                _replaced(holder, entropy_bottleneck=_Stop()),
                _replaced(self, g_a=_Constant(picture)),
            ):
                try:
                    super().forward(picture)
                except _Stopped as e:
                    found.append(e.args[0])
        z = torch.cat(found)
        _check_stride("h_a", y, z, 4)
        return z

    def synthesise(
        self,
        y_hat: Tensor,
        size: tuple[int, int],
        views: tuple[str, ...] = ("human", "machine"),
        g_t: nn.Module | None = None,
    ) -> dict[str, Tensor]:
        """The views asked for: x_hat = g_s(y_hat), x_bar = g_t(x_hat).

        Args:
            y_hat: ``(N, M, h, w)``.
            size: (H, W) of the pictures.
            views: Any of "human" (x_hat) and "machine" (x_bar).
            g_t: In place of the model's own.

        Returns:
            ``x_hat`` and / or ``x_bar``, ``(N, 3, H, W)``, unclamped.

        Raises:
            ValueError: For another view.
        """
        check_views(views)
        out = {}
        if not views:
            return out
        x_hat = self._each(self.g_s, y_hat, 16)
        if "human" in views:
            out["x_hat"] = x_hat[..., : size[0], : size[1]]
        if "machine" in views:
            out["x_bar"] = self._each(g_t or self.g_t, x_hat)[..., : size[0], : size[1]]
        return out

    @torch.no_grad()
    def compress(self, x: Tensor) -> dict[str, Any]:
        """Codes pictures of one size; the bytes of each depend on no other.

        Args:
            x: RGB in [0, 1], ``(N, 3, H, W)``.

        Returns:
            ``strings``: ``[[y's bytes per picture], [z's bytes per picture]]``;
            ``shape``: (H, W) of the pictures.

        Raises:
            ValueError: See :meth:`forward`.
        """
        coded = self.encode_latent(self.analyse(x))
        return {"strings": coded.strings, "shape": tuple(x.shape[-2:])}

    @torch.no_grad()
    def encode_latent(self, y: Tensor) -> Coded:
        """:meth:`compress` without the transform g_a.

        Args:
            y: ``(N, M, h, w)``.

        Returns:
            The strings, and per picture its symbols in coding order.
        """
        y = self._own_precision(y)
        return self.latent_coder().encode(y, self._hyper_analysis(y))

    @torch.no_grad()
    def decompress(
        self,
        strings: list[list[bytes]],
        shape: tuple[int, int],
        views: tuple[str, ...] = ("human", "machine"),
    ) -> dict[str, Tensor]:
        """Decodes what :meth:`compress` returned, alone or in any batch.

        Args:
            strings: ``[[y's bytes per picture], [z's bytes per picture]]``.
            shape: (H, W) of the pictures.
            views: Any of "human" and "machine"; only these are computed.

        Returns:
            ``x_hat`` and / or ``x_bar``, ``(N, 3, H, W)``, clamped to [0, 1].

        Raises:
            BitstreamError: If a string is damaged, or was coded with other weights.
        """
        y_hat, _ = self.decode_latent(strings, shape)
        out = self.synthesise(y_hat, shape, views)
        return {key: view.clamp(0, 1) for key, view in out.items()}

    @torch.no_grad()
    def decode_latent(
        self, strings: list[list[bytes]], shape: tuple[int, int]
    ) -> tuple[Tensor, list]:
        """:meth:`decompress` without the transforms.

        Returns:
            y_hat, ``(N, M, h, w)``, and per picture its symbols in coding order.

        Raises:
            BitstreamError: See :meth:`decompress`.
        """
        if len(strings) != 2 or len(strings[0]) != len(strings[1]) or not strings[0]:
            raise BitstreamError(
                "strings must be [[y's bytes per picture], [z's bytes per picture]], "
                f"got {[len(part) for part in strings]} strings"
            )
        z_shape = tuple(-(-side // STRIDE) for side in shape)
        y_hat, symbols = self.latent_coder().decode(*strings, z_shape)
        parameter = next(self.parameters())
        return y_hat.to(parameter.device, parameter.dtype), symbols

    def _own_precision(self, y: Tensor) -> Tensor:
        """Undoes autocast; in a model that is half or double throughout, nothing."""
        return y.to(next(self.parameters()).dtype)

    def aux_loss(self) -> Tensor:
        """CompressAI's, of the quantiles; in its own precision also under autocast."""
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            return super().aux_loss()

    def load_state_dict(self, state_dict, strict: bool = True):
        """CompressAI's, and a base's checkpoint loads too.

        Where all ``g_t.*`` keys are absent g_t becomes the identity; where all tables
        are absent they are rebuilt before the first use.
        """
        state_dict = dict(state_dict)
        if not any(key.startswith("g_t.") for key in state_dict):
            if isinstance(self.g_t, DynamicAdaptation):
                self.g_t.reset()
            g_t = self.g_t.state_dict()
            state_dict.update({f"g_t.{key}": value for key, value in g_t.items()})
        hidden = self._tables_hidden()
        self._empty_tables(hidden=False)  # CompressAI resizes only empty ones
        try:
            for key, value in self.state_dict().items():
                if key.split(".")[-1] in TABLE_BUFFERS:
                    state_dict.setdefault(key, value.new_empty(0))
            return super().load_state_dict(state_dict, strict=strict)
        except BaseException:
            self._tables_of = self._kept_of = None
            raise
        finally:
            if hidden:
                self.hide_tables()

    @classmethod
    def from_state_dict(cls, state_dict: dict[str, Tensor], **g_t_options):
        """A new model with the widths of the given weights.

        Args:
            state_dict: An HM model's, or its base's: then g_t is left out, unless
                ``g_t_width`` asks for an untrained one.
            **g_t_options: ``g_t_width``, ``g_t_downscale``, for a base's weights.

        Raises:
            RuntimeError: If keys are missing or unexpected.
        """
        g_t = {k[4:]: v for k, v in state_dict.items() if k.startswith("g_t.")}
        base = {k: v for k, v in state_dict.items() if not k.startswith("g_t.")}
        net = cls._base_from_state_dict(base)
        if g_t:
            if "layers.0.weight" not in g_t:
                raise RuntimeError(f"g_t.layers.0.weight is missing beside {set(g_t)}")
            net.g_t = DynamicAdaptation(**DynamicAdaptation.options_from(g_t))
            net.g_t.load_state_dict(g_t)
        elif g_t_options.get("g_t_width"):
            net.g_t = DynamicAdaptation(
                g_t_options["g_t_width"], g_t_options.get("g_t_downscale", 1)
            )
        else:
            net.g_t = nn.Identity()
        return net

    @classmethod
    def _base_from_state_dict(cls, state_dict: dict[str, Tensor]):
        return super().from_state_dict(state_dict)


def _check_stride(name: str, x: Tensor, out: Tensor, stride: int) -> None:
    if any(s != stride * t for s, t in zip(x.shape[-2:], out.shape[-2:], strict=True)):
        raise TypeError(
            f"{name} turns {tuple(x.shape)} into {tuple(out.shape)}; an HM model's has "
            f"stride {stride}"
        )


class _Constant(nn.Module):
    """Stands in for g_a where y is known."""

    def __init__(self, y: Tensor):
        super().__init__()
        self.y = y

    def forward(self, x: Tensor) -> Tensor:
        return self.y


class _Stopped(Exception):
    """Carries what :class:`_Stop` was given."""


class _Stop(nn.Module):
    """Ends the base's forward and hands out its own input."""

    def forward(self, x: Tensor):
        raise _Stopped(x)


class _Tap(nn.Module):
    """Stands in for g_s and keeps the y_hat it is given."""

    def forward(self, y_hat: Tensor) -> Tensor:
        self.seen = y_hat
        return y_hat.new_zeros(1)  # the base clamps in place what g_s returns


@contextlib.contextmanager
def _replaced(model: nn.Module, **parts: nn.Module):
    """Lets the base's own code run with other parts than the model's."""
    own = {name: model._modules[name] for name in parts}
    model._modules.update(parts)
    try:
        yield
    finally:
        model._modules.update(own)


@contextlib.contextmanager
def _means_seen(model: nn.Module):
    """The list of the means that come to ``gaussian_conditional``."""
    means: list[Tensor] = []
    if not model.mixed_quantisation:
        yield means
        return

    def keep(module, args, kwargs):
        mean = kwargs.get("means", args[2] if len(args) > 2 else None)
        if mean is not None:
            means.append(mean.detach())

    hook = model.gaussian_conditional.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield means
    finally:
        hook.remove()


@contextlib.contextmanager
def _frozen_quantiles(model: nn.Module):
    quantiles = [
        m.quantiles
        for m in model.modules()
        if isinstance(m, EntropyBottleneck) and m.quantiles.requires_grad
    ]
    for q in quantiles:
        q.requires_grad_(False)
    try:
        yield
    finally:
        for q in quantiles:
            q.requires_grad_(True)


@register_model("hm-bmshj2018-hyperprior")
class HMScaleHyperprior(HumanMachineMixin, ScaleHyperprior):
    """Scale hyperprior (Ballé 2018) with g_t."""


@register_model("hm-mbt2018-mean")
class HMMeanScaleHyperprior(HumanMachineMixin, MeanScaleHyperprior):
    """Mean-scale hyperprior (Minnen 2018) with g_t."""


@register_model("hm-mbt2018")
class HMJointAutoregressiveHierarchicalPriors(
    HumanMachineMixin, JointAutoregressiveHierarchicalPriors
):
    """Autoregressive context model and hyperprior (Minnen 2018) with g_t."""


@register_model("hm-mbt2018-s")
class HMSmallAutoregressive(HumanMachineMixin, JointAutoregressiveHierarchicalPriors):
    """mbt2018's entropy model with few weights, and ELIC's kind of transforms.

    The latent is as wide as the base's: 96 channels for 16x16x3 values would hold
    natural pictures to 29 or 30 dB even before anything is quantised, 192 to 35 dB.
    What is narrow is the entropy model, whose widths follow N, not M. The transforms
    are bottleneck residual blocks behind a pixel unshuffle, which train in about half
    the time of GDN's.

    Args:
        N: Half the channels of the entropy model; those of the transforms are 1.5 N,
            2 N and M. Even. Defaults to 64.
        M: Channels of the latent. Even. Defaults to 192.
        **kwargs: See :class:`HumanMachineMixin`.
    """

    def __init__(self, N: int = 64, M: int = 192, **kwargs):
        super().__init__(N=N, M=M, **kwargs)
        high, middle = N * 3 // 2, N * 2
        self.g_a = nn.Sequential(
            nn.PixelUnshuffle(4),
            conv3x3(48, high),
            *(ResidualBlock(high) for _ in range(3)),
            conv3x3(high, middle, stride=2),
            *(ResidualBlock(middle) for _ in range(3)),
            conv3x3(middle, M, stride=2),
            *(ResidualBlock(M) for _ in range(2)),
        )
        self.g_s = nn.Sequential(
            *(ResidualBlock(M) for _ in range(2)),
            deconv(M, middle, kernel_size=3),
            *(ResidualBlock(middle) for _ in range(3)),
            deconv(middle, high, kernel_size=3),
            *(ResidualBlock(high) for _ in range(3)),
            conv3x3(high, 48),
            nn.PixelShuffle(4),
        )
        self.h_s = nn.Sequential(
            deconv(N, N),
            nn.LeakyReLU(inplace=True),
            deconv(N, N * 3 // 2),
            nn.LeakyReLU(inplace=True),
            conv3x3(N * 3 // 2, N * 2),
        )
        self.context_prediction = MaskedConv2d(M, N, kernel_size=5, padding=2)
        self.entropy_parameters = nn.Sequential(
            nn.Conv2d(N * 3, N * 4, 1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(N * 4, N * 4, 1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(N * 4, M * 2, 1),
        )

    @classmethod
    def _base_from_state_dict(cls, state_dict: dict[str, Tensor]):
        net = cls(*state_dict["h_a.0.weight"].shape[:2], g_t_width=0)
        net.load_state_dict(state_dict)
        return net


@register_model("hm-cheng2020-anchor")
class HMCheng2020Anchor(HumanMachineMixin, Cheng2020Anchor):
    """Cheng 2020 without attention, with g_t: the paper's codec."""


@register_model("hm-cheng2020-attn")
class HMCheng2020Attention(HumanMachineMixin, Cheng2020Attention):
    """Cheng 2020 with attention, and g_t."""


@register_model("hm-cheng2020-anchor-checkerboard")
class HMCheng2020AnchorCheckerboard(HumanMachineMixin, Cheng2020AnchorCheckerboard):
    """Cheng 2020 with a checkerboard context model (He 2021), and g_t."""


@register_model("hm-elic2022")
class HMElic2022(HumanMachineMixin, Elic2022Official):
    """ELIC (He 2022) with g_t."""

    @classmethod
    def _base_from_state_dict(cls, state_dict: dict[str, Tensor]):
        # CompressAI's own infers neither M nor the groups.
        key = "latent_codec.y.latent_codec.y{}.context_prediction.weight"
        groups = []
        while key.format(len(groups)) in state_dict:
            groups.append(state_dict[key.format(len(groups))].size(1))
        net = cls(state_dict["g_a.0.weight"].size(0), sum(groups), groups)
        net.load_state_dict(state_dict)
        return net


HM_MODELS = {
    "hm-bmshj2018-hyperprior": HMScaleHyperprior,
    "hm-mbt2018-mean": HMMeanScaleHyperprior,
    "hm-mbt2018": HMJointAutoregressiveHierarchicalPriors,
    "hm-cheng2020-anchor": HMCheng2020Anchor,
    "hm-cheng2020-attn": HMCheng2020Attention,
    "hm-cheng2020-anchor-checkerboard": HMCheng2020AnchorCheckerboard,
    "hm-elic2022": HMElic2022,
    "hm-mbt2018-s": HMSmallAutoregressive,
}
