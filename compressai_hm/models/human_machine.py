"""HM models: a CompressAI codec whose one bitstream gives x_hat and x_bar.

::

         ┌───┐ y ┌────────────────────┐ y_hat ┌───┐ x_hat (humans)
    x ─►─┤g_a├───┤ the base's entropy ├───►───┤g_s├──┬──►
         └───┘   │ model, ONE stream  │       └───┘  │ ┌───┐ x_bar (machines)
                 └────────────────────┘              └─┤g_t├──►
                                                       └───┘
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Self

import torch
import torch.nn as nn
import torch.nn.functional as F
from compressai.registry import MODELS
from torch import Tensor

from ..checks import check_finite, check_pictures, check_views
from ..entropy import (
    BitstreamError,
    Coded,
    Family,
    QuantSteps,
    find_family,
    step_values,
)
from ..entropy.mirrored_tables import TablesMixin, with_metadata
from ..geometry import Y_STRIDE, Z_STRIDE, blocks
from ..runtime.precision import analysis, keep_precise, without_tf32
from ..runtime.tiles import tiled
from .adaptation import DynamicAdaptation

QUANTIZERS = ("noise", "ste")
"""Replacements of quantization in training; see ``HumanMachineMixin.quantizer``."""


def picture_bits(
    likelihoods: dict[str, Tensor], sizes: list[tuple[int, int]]
) -> Tensor:
    """Computes the bits of each picture of a padded batch, without its padding.

    The sum is over the latents of the picture coded alone: those of its size padded to
        a
    multiple of 64. It is computed in float32 also under autocast.

    Args:
        likelihoods: p(y_hat) and p(z_hat) of the batch, each ``(N, C, h, w)``.
        sizes: (H, W) of each picture in pixels, without padding.

    Returns:
        Bits, ``(N,)`` float32.
    """
    z_rows, z_cols = likelihoods["z"].shape[-2:]
    bits = []
    for i, size in enumerate(sizes):
        rows, cols = blocks(size, Z_STRIDE)
        cropped = (
            p[i, :, : p.shape[-2] // z_rows * rows, : p.shape[-1] // z_cols * cols]
            for p in likelihoods.values()
        )
        bits.append(sum(-p.float().log2().sum() for p in cropped))
    return torch.stack(bits)


class HumanMachineMixin(TablesMixin):
    """Turns a CompressAI image codec with ``g_a`` and ``g_s`` into an HM model.

    The codec must code its latent like one of CompressAI's models with a hyperprior, or
    the class must have an ``entropy_family``.

    Put it before the codec among the bases, and register the class::

        @register_model("hm-mine")
        class HMMine(HumanMachineMixin, MyCodec):
            pass

    Args:
        g_t_width: Channels of g_t; 0 leaves g_t out (x_bar is then x_hat).
            Defaults to 32.
        g_t_downscale: See :class:`DynamicAdaptation`. Defaults to 1.
        **kwargs: Arguments of the codec.

    Raises:
        TypeError: If the codec has no known family.
    """

    entropy_family: type[Family] | None = None
    """Family of the entropy part, for codecs of no known family."""

    _uses_family = True  # the forward of the codec is never used

    made_with: tuple[tuple, dict[str, Any]] | None
    """Arguments of the constructor, for checkpoints; None unless they are plain."""

    def __new__(cls, *args, **kwargs) -> Self:
        net = super().__new__(cls)
        plain = _is_plain(args) and _is_plain(list(kwargs.values()))
        net.__dict__["made_with"] = (args, kwargs) if plain else None
        return net

    def __init__(self, *args, g_t_width: int = 32, g_t_downscale: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        find_family(self)
        self.g_t = (
            DynamicAdaptation(g_t_width, g_t_downscale) if g_t_width else nn.Identity()
        )
        keep_precise(self)

    learned = True

    quantizer = "noise"
    """Replacement of quantization in training: "noise", as in CompressAI, or "ste".

    "ste" is rounding with straight-through gradients: in training all parts get the
    values that they decode, contexts those that were decoded before, and the rate is
    the coded one. Noise gives the rate its gradient (after D. Minnen and S. Singh,
    "Channel-Wise Autoregressive Entropy Models for Learned Image Compression", 2020).
    The coder runs in each step unless the family computes these values itself.
    """

    step = 1.0
    """Default quantization step, from 1/8 (more bits) to 16 (fewer)."""

    coarsest_step = 16.0
    """Coarsest step that a search for a size tries. It belongs to the weights: set it
    for your own where they were trained for coarser steps."""

    tf32 = False
    """Whether coding may use NVIDIA's TF32, which is faster, if torch has it enabled.

    Some percent of the symbols of a GPU then differ from those of a CPU; files decode
    alike. Training follows torch's setting.
    """

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Codes pictures without a bitstream.

        In eval mode x_hat, x_bar and bits are those of coding. In training
        ``quantizer`` replaces quantization, so the rate is an estimate.

        Args:
            x: RGB in [0, 1], ``(N, 3, H, W)``, any H and W from 1.

        Returns:
            ``x_hat`` and ``x_bar``, ``(N, 3, H, W)``, unclamped, and ``likelihoods``,
            ``{"y": (N, M, h, w), "z": (N, C, h', w')}``.

        Raises:
            ValueError: If x is not such a tensor or leaves [0, 1].
        """
        latent = self.code_latent(self.analyze(x))
        views = self.synthesize(latent["y_hat"], x.shape[-2:])
        return {**views, "likelihoods": latent["likelihoods"]}

    def analyze(self, x: Tensor, checked: bool = False) -> Tensor:
        """Computes y = g_a(x) after checks, and after padding by replication to 64.

        Args:
            x: RGB in [0, 1], ``(N, 3, H, W)``.
            checked: Whether the caller has checked x; a GPU waits for the check.
                Defaults to False.

        Returns:
            y, ``(N, M, h, w)`` with h = 4 ceil(H / 64).

        Raises:
            ValueError: See :meth:`forward`.
        """
        if not checked:
            check_pictures(x)
        height, width = x.shape[-2:]
        pad = (0, -width % Z_STRIDE, 0, -height % Z_STRIDE)
        if any(pad):
            x = F.pad(x, pad, mode="replicate")
        with self._coding_precision():
            y = self._transform_each(partial(analysis, self.g_a), x, 1 / Y_STRIDE)
        _check_stride("g_a", x, y, Y_STRIDE)
        return y

    def _coding_precision(self) -> AbstractContextManager:
        exempt = self.training or self.tf32 or torch.compiler.is_compiling()
        return nullcontext() if exempt else without_tf32()

    def _transform_each(
        self, transform: Callable[[Tensor], Tensor], x: Tensor, scale: float = 1
    ) -> Tensor:
        """Computes a transform; in eval mode for one picture at a time.

        The result of a picture therefore does not depend on the others.

        Args:
            transform: g_a, g_s, g_t or h_a.
            x: Its input, ``(N, C, h, w)``.
            scale: The sides of the output over those of x. Defaults to 1.
        """
        if (
            torch.is_autocast_enabled(x.device.type)
            and not torch.compiler.is_compiling()
        ):
            keep_precise(self)  # parts may have been replaced
        if self.training:
            return transform(x)
        outs = [tiled(transform, picture, scale) for picture in x.split(1)]
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def code_latent(
        self, y: Tensor, steps: list[QuantSteps] | None = None, gradients: bool = False
    ) -> dict[str, Any]:
        """Computes the entropy model alone, in its precision also under autocast.

        In eval mode y_hat and likelihoods are exactly those of coding. In training
        ``quantizer`` replaces quantization. The rate does not move the quantiles of the
        entropy bottleneck, which only ``aux_loss()`` trains, as in CompressAI.

        Args:
            y: The latent, ``(N, M, h, w)``.
            steps: Quantization steps of each picture. Defaults to None, the model's
                ``step``.
            gradients: Whether to compute the gradients of training with "ste" also in
                eval mode. Defaults to False.

        Returns:
            ``y_hat``, like y, and ``likelihoods`` ``{"y", "z"}``; with gradients also
            ``rounding``, (y - y_hat) over the step, like y.

        Raises:
            ValueError: If the family trains with "ste" only and ``quantizer`` is
                another one.
        """
        y, steps = self._to_own_precision(y), self._expand_steps(len(y), steps)
        ste, alone = self.quantizer == "ste", find_family(self).trains_on_symbols
        if alone and not ste:
            raise ValueError(f'{type(self).__name__} trains with quantizer="ste" only')
        # Values that are not finite cannot be coded; the loss reports them.
        coder = self.training and ste and not alone and y.isfinite().all()
        if gradients or coder:
            return self._measure_with_gradients(y, steps)
        if not self.training:
            return self._measure(y, steps)
        with torch.autocast(y.device.type, enabled=False):
            return find_family(self).training(y, steps)

    def _expand_steps(
        self, count: int, steps: list[QuantSteps] | None
    ) -> list[QuantSteps] | None:
        """Returns the steps of several pictures; None where all are 1."""
        if steps is None and self.step != 1:
            return [QuantSteps.nearest(self.step, (1, 1))] * count
        return steps

    @torch.compiler.disable
    @torch.no_grad()
    def _measure(self, y: Tensor, steps: list[QuantSteps] | None) -> dict[str, Any]:
        return self.latent_coder().measure(y, self._hyper_analysis(y, steps), steps)

    def _measure_with_gradients(
        self, y: Tensor, steps: list[QuantSteps] | None
    ) -> dict[str, Any]:
        """Computes :meth:`_measure` with the gradients of ``Family.training``."""
        coded = self._measure(y, steps)
        values, probabilities = coded["y_hat"], coded["likelihoods"]
        step = None if steps is None else step_values(steps, y.shape[-2:]).to(y)
        with torch.autocast(y.device.type, enabled=False):
            moving = find_family(self).training(y, steps, values)
        p = moving["likelihoods"]
        return {
            "y_hat": values + (moving["y_hat"] - moving["y_hat"].detach()),
            "likelihoods": {k: probabilities[k] * (p[k] / p[k].detach()) for k in p},
            "rounding": (y - values) / (1.0 if step is None else step),
        }

    def _hyper_analysis(self, y: Tensor, steps: list[QuantSteps] | None) -> Tensor:
        """Computes z from y for coding."""
        family = find_family(self)
        pairs = zip(y.split(1), steps or [QuantSteps()] * len(y), strict=True)
        with self._coding_precision(), torch.autocast(y.device.type, enabled=False):
            z = torch.cat([family.hyper_analysis(y_i, [step]) for y_i, step in pairs])
        _check_stride("h_a", y, z, Z_STRIDE // Y_STRIDE)
        return z

    def synthesize(
        self,
        y_hat: Tensor,
        size: tuple[int, int],
        views: tuple[str, ...] = ("human", "machine"),
        g_t: nn.Module | None = None,
    ) -> dict[str, Tensor]:
        """Computes views: x_hat = g_s(y_hat) and x_bar = g_t(x_hat).

        Args:
            y_hat: Decoded latent, ``(N, M, h, w)``.
            size: (H, W) of the pictures in pixels.
            views: Views to compute, of "human" (x_hat) and "machine" (x_bar). Defaults
                to both.
            g_t: Network instead of the model's g_t. Defaults to None.

        Returns:
            ``x_hat`` and / or ``x_bar``, ``(N, 3, H, W)``, unclamped.

        Raises:
            ValueError: If a view is another one.
        """
        check_views(views)
        out = {}
        if not views:
            return out
        x_hat = self._transform_each(self.g_s, y_hat, Y_STRIDE)
        if "human" in views:
            out["x_hat"] = x_hat[..., : size[0], : size[1]]
        if "machine" in views:
            x_bar = self._transform_each(g_t or self.g_t, x_hat)
            out["x_bar"] = x_bar[..., : size[0], : size[1]]
        return out

    @torch.no_grad()
    def compress(
        self, x: Tensor, step: float | Tensor | QuantSteps | None = None
    ) -> dict[str, Any]:
        """Codes pictures of one size; the bytes of each depend on no other.

        Args:
            x: RGB in [0, 1], ``(N, 3, H, W)``.
            step: Quantization step, from 1/8 (more bits) to 16 (fewer bits), or a map
                of steps for all pictures, ``(ceil(H / 16), ceil(W / 16))``. Defaults to
                None, the model's ``step``.

        Returns:
            ``strings``, ``[[y's bytes per picture], [z's bytes per picture]]``;
            ``shape``, (H, W) of the pictures; and, if the step is not the model's,
            ``steps`` of each picture, which decoding needs.

        Raises:
            ValueError: See :meth:`forward`; also if a step or map is invalid.
        """
        y, shape = self.analyze(x), tuple(x.shape[-2:])
        usual = QuantSteps.nearest(self.step, shape)
        steps = usual if step is None else QuantSteps.nearest(step, shape)
        coded = self.encode_latent(y, [steps] * len(y))
        out = {"strings": coded.strings, "shape": shape}
        return out if steps == usual else {**out, "steps": coded.steps}

    @torch.no_grad()
    def encode_latent(self, y: Tensor, steps: list[QuantSteps] | None = None) -> Coded:
        """Codes latents.

        Args:
            y: The latent, ``(N, M, h, w)``.
            steps: Steps of each picture. Defaults to None, the model's ``step``.

        Returns:
            The streams and symbols of each picture.

        Raises:
            ValueError: If y is not finite.
        """
        y = self._to_own_precision(y)
        steps = self._expand_steps(len(y), steps)
        return self.latent_coder().encode(y, self._hyper_analysis(y, steps), steps)

    @torch.no_grad()
    def decompress(
        self,
        strings: list[list[bytes]],
        shape: tuple[int, int],
        views: tuple[str, ...] = ("human", "machine"),
        steps: list[QuantSteps] | None = None,
    ) -> dict[str, Tensor]:
        """Decodes what :meth:`compress` returned, alone or in any batch.

        Args:
            strings: ``[[y's bytes per picture], [z's bytes per picture]]``.
            shape: (H, W) of the pictures in pixels.
            views: Views to compute, of "human" and "machine". Defaults to both.
            steps: Steps of each picture, if compress returned them. Defaults to None,
                the model's ``step``.

        Returns:
            ``x_hat`` and / or ``x_bar``, ``(N, 3, H, W)``, clamped to [0, 1].

        Raises:
            BitstreamError: If a string is damaged, or was coded with other weights.
            ValueError: If g_s or g_t gives values that are not finite.
        """
        y_hat, _ = self.decode_latent(strings, shape, steps)
        out = self.synthesize(y_hat, shape, views)
        check_finite(out)
        return {key: view.clamp(0, 1) for key, view in out.items()}

    @torch.no_grad()
    def decode_latent(
        self,
        strings: list[list[bytes]],
        shape: tuple[int, int],
        steps: list[QuantSteps] | None = None,
    ) -> tuple[Tensor, list]:
        """Decodes latents.

        Args:
            strings: ``[[y's bytes per picture], [z's bytes per picture]]``.
            shape: (H, W) of the pictures in pixels.
            steps: Steps of each picture. Defaults to None, the model's ``step``.

        Returns:
            y_hat, ``(N, M, h, w)``, and the symbols of each picture in coding order.

        Raises:
            BitstreamError: See :meth:`decompress`.
        """
        if len(strings) != 2 or len(strings[0]) != len(strings[1]) or not strings[0]:
            raise BitstreamError(
                "strings must be [[y's bytes per picture], [z's bytes per picture]], "
                f"got {[len(part) for part in strings]} strings"
            )
        if steps is not None and len(steps) != len(strings[0]):
            raise BitstreamError(f"{len(steps)} steps for {len(strings[0])} pictures")
        steps = self._expand_steps(len(strings[0]), steps)
        z_shape = blocks(shape, Z_STRIDE)
        y_hat, symbols = self.latent_coder().decode(*strings, z_shape, steps)
        return y_hat.to(find_family(self).bottleneck.quantiles), symbols

    def _to_own_precision(self, y: Tensor) -> Tensor:
        """Converts y to the model's precision, which undoes autocast."""
        return y.to(find_family(self).bottleneck.quantiles.dtype)

    def aux_loss(self) -> Tensor:
        """Computes CompressAI's loss of the quantiles, without autocast.

        Returns:
            A scalar.
        """
        device = find_family(self).bottleneck.quantiles.device
        with torch.autocast(device.type, enabled=False):
            return super().aux_loss()

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True
    ) -> NamedTuple:
        """Loads weights, also those of a codec without g_t.

        If all ``g_t.*`` keys are absent g_t becomes the identity. Tables may be absent.

        Args:
            state_dict: The weights.
            strict: Whether all other keys must match. Defaults to True.

        Returns:
            Missing and unexpected keys, as torch names them.

        Raises:
            RuntimeError: If keys or shapes do not match.
        """
        state_dict = with_metadata(state_dict, state_dict)
        if not any(key.startswith("g_t.") for key in state_dict):
            if isinstance(self.g_t, DynamicAdaptation):
                self.g_t.reset()
            g_t = self.g_t.state_dict()
            state_dict.update({f"g_t.{key}": value for key, value in g_t.items()})
        return super().load_state_dict(state_dict, strict=strict)

    @classmethod
    def from_state_dict(cls, state_dict: dict[str, Tensor], **g_t_options: int) -> Self:
        """Makes a model with the widths of weights, and loads them.

        Args:
            state_dict: Weights of an HM model or of its base. With those of a base, g_t
                is left out, unless ``g_t_width`` asks for an untrained one.
            **g_t_options: ``g_t_width`` and ``g_t_downscale``, for weights of a base.

        Returns:
            The model.

        Raises:
            RuntimeError: If keys are missing or unexpected.
        """
        g_t = {k[4:]: v for k, v in state_dict.items() if k.startswith("g_t.")}
        base = {k: v for k, v in state_dict.items() if not k.startswith("g_t.")}
        net = cls._base_from_state_dict(with_metadata(base, state_dict))
        if g_t:
            if "layers.0.weight" not in g_t:
                raise RuntimeError(f"g_t.layers.0.weight is missing beside {set(g_t)}")
            net.fit_g_t(g_t)
            net.g_t.load_state_dict(g_t)
        elif g_t_options.get("g_t_width"):
            net.g_t = DynamicAdaptation(
                g_t_options["g_t_width"], g_t_options.get("g_t_downscale", 1)
            )
        else:
            net.g_t = nn.Identity()
        return net

    def fit_g_t(self, weights: Mapping[str, Tensor]) -> None:
        """Replaces g_t by an untrained one with the widths of weights.

        A g_t of another class is not replaced.

        Args:
            weights: Weights of g_t, without a prefix; empty for no g_t.
        """
        if not isinstance(self.g_t, (DynamicAdaptation, nn.Identity)):
            return
        if not weights:
            self.g_t = nn.Identity()
        elif "layers.0.weight" in weights:
            self.g_t = DynamicAdaptation(**DynamicAdaptation.options_from(weights))

    @classmethod
    def _base_from_state_dict(cls, state_dict: dict[str, Tensor]):
        return super().from_state_dict(state_dict)


def _check_stride(name: str, x: Tensor, out: Tensor, stride: int) -> None:
    if any(s != stride * t for s, t in zip(x.shape[-2:], out.shape[-2:], strict=True)):
        raise TypeError(
            f"{name} turns {tuple(x.shape)} into {tuple(out.shape)}; an HM model's has "
            f"stride {stride}"
        )


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def registered_name(net: nn.Module) -> str | None:
    """Returns the name of a model's class in CompressAI's registry; None without one.

    Args:
        net: The model.
    """
    return next((name for name, model in MODELS.items() if model is type(net)), None)


def unwrapped(net: nn.Module) -> nn.Module:
    """Returns the model inside of torch.compile, DataParallel or AveragedModel.

    Args:
        net: The model, with or without a wrapper.

    Raises:
        TypeError: If there is no HM model.
    """
    while not isinstance(net, HumanMachineMixin):
        inner = getattr(net, "_orig_mod", None) or getattr(net, "module", None)
        if not isinstance(inner, nn.Module):
            raise TypeError(
                f"net must be an HM model, got {type(net).__module__}."
                f"{type(net).__qualname__}"
            )
        net = inner
    return net
