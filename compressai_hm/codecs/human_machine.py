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

from .adaptation import DynamicAdaptation
from .checks import check_finite, check_pictures, check_views
from .entropy import BitstreamError, Coded, Family, Steps, family_of, step_values
from .precision import analysis, keep_precise, without_tf32
from .tables import TablesMixin, with_metadata
from .tiles import tiled

Y_STRIDE = 16
"""Pixels to a position of y, on each side."""

Z_STRIDE = 64
"""Pixels to a position of z; pictures are padded to a multiple of it."""


QUANTIZERS = ("noise", "ste")
"""What can stand for quantization in training; see ``HumanMachineMixin.quantizer``."""


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
        rows, cols = -(-height // Z_STRIDE), -(-width // Z_STRIDE)
        own = (
            p[i, :, : p.shape[-2] // z_rows * rows, : p.shape[-1] // z_cols * cols]
            for p in likelihoods.values()
        )
        bits.append(sum(-p.float().log2().sum() for p in own))
    return torch.stack(bits)


class HumanMachineMixin(TablesMixin):
    """Turns a CompressAI image codec with ``g_a`` and ``g_s`` into an HM model.

    The codec's latent must be coded in a way known here, that of one of CompressAI's
    models with a hyperprior, or the class says its own as ``entropy_family``.

    Put it before the codec among the bases, and register the class::

        @register_model("hm-mine")
        class HMMine(HumanMachineMixin, MyCodec):
            pass

    Args:
        g_t_width: Channels of g_t; 0 leaves g_t out (x_bar is then x_hat).
            Defaults to 32.
        g_t_downscale: See :class:`DynamicAdaptation`. Defaults to 1.
        **kwargs: The base's own.

    Raises:
        TypeError: If it is not known how the codec codes its latent.
    """

    entropy_family: type[Family] | None = None
    """How the latent is coded, where the base is of no known family."""

    _uses_family = True  # and never the forward of its base

    made_with: tuple[tuple, dict[str, Any]] | None
    """Arguments of the constructor, for checkpoints, if they are plain values."""

    def __new__(cls, *args, **kwargs) -> Self:
        net = super().__new__(cls)
        plain = _plain(args) and _plain(list(kwargs.values()))
        net.__dict__["made_with"] = (args, kwargs) if plain else None
        return net

    def __init__(self, *args, g_t_width: int = 32, g_t_downscale: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        family_of(self)
        self.g_t = (
            DynamicAdaptation(g_t_width, g_t_downscale) if g_t_width else nn.Identity()
        )
        keep_precise(self)

    learned = True

    quantizer = "noise"
    """What stands for quantization in training: "noise", CompressAI's way, or "ste".

    With "ste", rounding with straight-through gradients, all parts see in training what
    they decode, contexts what was decoded before, and the rate is the coded one; noise
    gives the rate its gradient (after D. Minnen and S. Singh, "Channel-Wise
    Autoregressive Entropy Models for Learned Image Compression", 2020). Where the
    family does not train so by itself, the coder runs in each step.
    """

    step = 1.0
    """Default quantization step, from 1/8 (more bits) to 16 (fewer)."""

    tf32 = False
    """Whether NVIDIA's TF32 may compute what is coded, faster where torch has it on.

    A GPU's symbols are then other than a CPU's, some of a hundred; files decode alike.
    Training takes what torch is set to.
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

    def analyse(self, x: Tensor, checked: bool = False) -> Tensor:
        """y = g_a(x), after the checks and the padding by replication to 64.

        Args:
            x: RGB in [0, 1], ``(N, 3, H, W)``.
            checked: The caller has seen to that. A GPU waits for the check. Defaults to
                False.

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
            y = self._each(partial(analysis, self.g_a), x, 1 / Y_STRIDE)
        _check_stride("g_a", x, y, Y_STRIDE)
        return y

    def _coding_precision(self) -> AbstractContextManager:
        exempt = self.training or self.tf32 or torch.compiler.is_compiling()
        return nullcontext() if exempt else without_tf32()

    def _each(
        self, transform: Callable[[Tensor], Tensor], x: Tensor, scale: float = 1
    ) -> Tensor:
        """In eval mode one picture at a time: its numbers depend on no other's.

        Args:
            transform: g_a, g_s, g_t or h_a.
            x: ``(N, C, h, w)``.
            scale: The sides of the output over those of x.
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
        self, y: Tensor, steps: list[Steps] | None = None, gradients: bool = False
    ) -> dict[str, Any]:
        """The entropy model alone, in its own precision also under autocast.

        In eval mode this is what coding gives, to the symbol. In training noise stands
        for it where ``quantizer`` is "noise". The rate does not move the entropy
        bottleneck's quantiles: they belong to ``aux_loss()`` only, as with CompressAI's
        two optimizers.

        Args:
            y: ``(N, M, h, w)``.
            steps: The quantisation steps of each picture; ``step`` if left out.
            gradients: Those of training with "ste", in eval mode too.

        Returns:
            ``y_hat``, like y, and ``likelihoods``; with gradients also ``rounding``,
            what is quantised less what comes of it, over the step, like y.
        """
        y, steps = self._own_precision(y), self._steps_of(len(y), steps)
        ste, alone = self.quantizer == "ste", family_of(self).trains_on_symbols
        if alone and not ste:
            raise ValueError(f'{type(self).__name__} trains with quantizer="ste" only')
        # What is not finite cannot be coded: it is for the loss to say so.
        coder = self.training and ste and not alone and y.isfinite().all()
        if gradients or coder:
            return self._measure_with_gradients(y, steps)
        if not self.training:
            return self._measure(y, steps)
        with torch.autocast(y.device.type, enabled=False):
            return family_of(self).training(y, steps)

    def _steps_of(self, count: int, steps: list[Steps] | None) -> list[Steps] | None:
        """Those of several pictures; None where all are 1."""
        if steps is None and self.step != 1:
            return [Steps.of(self.step, (1, 1))] * count
        return steps

    @torch.compiler.disable
    @torch.no_grad()
    def _measure(self, y: Tensor, steps: list[Steps] | None) -> dict[str, Any]:
        return self.latent_coder().measure(y, self._hyper_analysis(y, steps), steps)

    def _measure_with_gradients(
        self, y: Tensor, steps: list[Steps] | None
    ) -> dict[str, Any]:
        """What :meth:`_measure` gives, with the gradients of ``Family.training``."""
        coded = self._measure(y, steps)
        values, probabilities = coded["y_hat"], coded["likelihoods"]
        step = None if steps is None else step_values(steps, y.shape[-2:]).to(y)
        with torch.autocast(y.device.type, enabled=False):
            moving = family_of(self).training(y, steps, values)
        p = moving["likelihoods"]
        return {
            "y_hat": values + (moving["y_hat"] - moving["y_hat"].detach()),
            "likelihoods": {k: probabilities[k] * (p[k] / p[k].detach()) for k in p},
            "rounding": (y - values) / (1.0 if step is None else step),
        }

    def _hyper_analysis(self, y: Tensor, steps: list[Steps] | None) -> Tensor:
        """z of y, in eval mode."""
        family = family_of(self)
        each = steps or [Steps()] * len(y)
        with self._coding_precision(), torch.autocast(y.device.type, enabled=False):
            z = torch.cat(
                [
                    family.hyper_analysis(own, [step])
                    for own, step in zip(y.split(1), each, strict=True)
                ]
            )
        _check_stride("h_a", y, z, Z_STRIDE // Y_STRIDE)
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
        x_hat = self._each(self.g_s, y_hat, Y_STRIDE)
        if "human" in views:
            out["x_hat"] = x_hat[..., : size[0], : size[1]]
        if "machine" in views:
            out["x_bar"] = self._each(g_t or self.g_t, x_hat)[..., : size[0], : size[1]]
        return out

    @torch.no_grad()
    def compress(
        self, x: Tensor, step: float | Tensor | Steps | None = None
    ) -> dict[str, Any]:
        """Codes pictures of one size; the bytes of each depend on no other.

        Args:
            x: RGB in [0, 1], ``(N, 3, H, W)``.
            step: Of quantisation, from 1/8 (more bits) to 16 (fewer); or a map of them,
                ``(ceil(H / 16), ceil(W / 16))``, for all pictures alike. The model's
                ``step`` if left out.

        Returns:
            ``strings``: ``[[y's bytes per picture], [z's bytes per picture]]``;
            ``shape``: (H, W) of the pictures; and, where the step is not the model's,
            ``steps`` of each picture, which decoding needs.

        Raises:
            ValueError: See :meth:`forward`; for a step or map that cannot be.
        """
        y, shape = self.analyse(x), tuple(x.shape[-2:])
        usual = Steps.of(self.step, shape)
        steps = usual if step is None else Steps.of(step, shape)
        coded = self.encode_latent(y, [steps] * len(y))
        out = {"strings": coded.strings, "shape": shape}
        return out if steps == usual else {**out, "steps": coded.steps}

    @torch.no_grad()
    def encode_latent(self, y: Tensor, steps: list[Steps] | None = None) -> Coded:
        """:meth:`compress` without the transform g_a.

        Args:
            y: ``(N, M, h, w)``.
            steps: Of each picture; ``step`` if left out.

        Returns:
            The strings, and per picture its symbols in coding order.
        """
        y = self._own_precision(y)
        steps = self._steps_of(len(y), steps)
        return self.latent_coder().encode(y, self._hyper_analysis(y, steps), steps)

    @torch.no_grad()
    def decompress(
        self,
        strings: list[list[bytes]],
        shape: tuple[int, int],
        views: tuple[str, ...] = ("human", "machine"),
        steps: list[Steps] | None = None,
    ) -> dict[str, Tensor]:
        """Decodes what :meth:`compress` returned, alone or in any batch.

        Args:
            strings: ``[[y's bytes per picture], [z's bytes per picture]]``.
            shape: (H, W) of the pictures.
            views: Any of "human" and "machine"; only these are computed.
            steps: Of each picture, if compress returned them; else the model's.

        Returns:
            ``x_hat`` and / or ``x_bar``, ``(N, 3, H, W)``, clamped to [0, 1].

        Raises:
            BitstreamError: If a string is damaged, or was coded with other weights.
            ValueError: If g_s or g_t gives values that are not finite.
        """
        y_hat, _ = self.decode_latent(strings, shape, steps)
        out = self.synthesise(y_hat, shape, views)
        check_finite(out)
        return {key: view.clamp(0, 1) for key, view in out.items()}

    @torch.no_grad()
    def decode_latent(
        self,
        strings: list[list[bytes]],
        shape: tuple[int, int],
        steps: list[Steps] | None = None,
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
        if steps is not None and len(steps) != len(strings[0]):
            raise BitstreamError(f"{len(steps)} steps for {len(strings[0])} pictures")
        steps = self._steps_of(len(strings[0]), steps)
        z_shape = tuple(-(-side // Z_STRIDE) for side in shape)
        y_hat, symbols = self.latent_coder().decode(*strings, z_shape, steps)
        own = family_of(self).bottleneck.quantiles
        return y_hat.to(own.device, own.dtype), symbols

    def encode(self, x: Tensor, **options) -> bytes:
        """The file of one picture; see :func:`compressai_hm.codecs.encode`."""
        from .container import encode  # which is made of this

        return encode(self, x, **options)

    def decode(
        self,
        data: bytes,
        size: tuple[int, int] | None = None,
        views: tuple[str, ...] = ("human", "machine"),
        **options,
    ) -> dict[str, Any]:
        """The views of a file; see :func:`compressai_hm.codecs.decode`.

        Args:
            data: The file, which says its size by itself.
            size: Not needed.
            views: Any of "human" and "machine".
            **options: ``max_pixels``, ``reader``.
        """
        from .container import decode

        return decode(self, data, views, **options)

    def overhead(self, data: bytes) -> int:
        """Bytes of a file's header."""
        from .container import Bitstream

        return Bitstream.read(data).overhead

    def _own_precision(self, y: Tensor) -> Tensor:
        """Undoes autocast; in a model that is half or double throughout, nothing."""
        return y.to(family_of(self).bottleneck.quantiles.dtype)

    def aux_loss(self) -> Tensor:
        """CompressAI's, of the quantiles; in its own precision also under autocast."""
        device = family_of(self).bottleneck.quantiles.device
        with torch.autocast(device.type, enabled=False):
            return super().aux_loss()

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True
    ) -> NamedTuple:
        """CompressAI's, and a base's checkpoint loads too.

        Where all ``g_t.*`` keys are absent g_t becomes the identity; tables may be
        absent, too.
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
        """Makes g_t of the widths of the given weights, where it is of others.

        Args:
            weights: g_t's own, without a prefix; none for no g_t.
        """
        if not isinstance(self.g_t, (DynamicAdaptation, nn.Identity)):
            return  # one of one's own
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


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def registered_name(net: nn.Module) -> str | None:
    """The name of a model's class in CompressAI's registry, if it has one."""
    return next((name for name, model in MODELS.items() if model is type(net)), None)


def unwrapped(net: nn.Module) -> nn.Module:
    """The model inside ``torch.compile``'s, DataParallel's or an average's wrapper."""
    while not isinstance(net, HumanMachineMixin):
        inner = getattr(net, "_orig_mod", None) or getattr(net, "module", None)
        if not isinstance(inner, nn.Module):
            raise TypeError(
                f"net must be an HM model, got {type(net).__module__}."
                f"{type(net).__qualname__}"
            )
        net = inner
    return net
