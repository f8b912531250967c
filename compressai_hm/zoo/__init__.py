"""CompressAI model-zoo entries of the HM models.

Importing this module puts each into ``compressai.zoo.image_models``,
``compressai.zoo.models`` and ``compressai.zoo.image.model_architectures``.
"""

from functools import partial
from pathlib import Path
from urllib.error import URLError

import compressai.zoo
import torch
from compressai.registry import MODELS
from compressai.zoo.image import cfgs as _base_cfgs
from compressai.zoo.image import model_architectures, model_urls
from torch import nn

from ..codecs import HM_MODELS, HumanMachineMixin
from .released import load_released

_CHENG2020 = _base_cfgs["cheng2020-anchor"]

cfgs: dict[str, dict[int, tuple[int, ...]]] = {
    **{f"hm-{base}": c for base, c in _base_cfgs.items() if f"hm-{base}" in HM_MODELS},
    "hm-cheng2020-anchor-checkerboard": _CHENG2020,
    "hm-elic2022": {quality: (192, 320) for quality in range(1, 9)},
    "hm-mbt2018-s": {quality: (64, 192) for quality in range(1, 5)},
}
"""Channels (N, M) or (N,) of every entry and quality: those of the base."""

_G_T = {"hm-mbt2018-s": dict(g_t_width=32, g_t_downscale=4)}


def load_model(
    name: str,
    quality: int,
    metric: str = "mse",
    pretrained: bool | str = False,
    progress: bool = True,
    **kwargs,
) -> nn.Module:
    """An HM model of the zoo; ``image_models[name]`` is this, with its name filled in.

    Args:
        name: A zoo name such as "hm-cheng2020-anchor".
        quality: Chooses the channels and, with weights, the λ_h they were trained
            at: from 1 (lowest) to 4, 6 or 8.
        metric: What the weights were trained for: "mse" or "ms-ssim".
        pretrained: True loads released HM weights, from the package;
            "base" loads CompressAI's, with g_t the identity.
        progress: Whether a download shows a progress bar.
        **kwargs: For the model: ``g_t_width``, ``g_t_downscale``.

    Raises:
        ValueError: For a name, quality, metric or ``pretrained`` that does not exist.
        RuntimeError: If there are no such weights, or they cannot be downloaded.
    """
    if name not in cfgs:
        raise ValueError(f"unknown zoo name {name!r}; there are {sorted(cfgs)}")
    if quality not in cfgs[name]:
        raise ValueError(
            f"{name} has no quality {quality!r}; there are {min(cfgs[name])} to "
            f"{max(cfgs[name])}"
        )
    if metric not in ("mse", "ms-ssim"):
        raise ValueError(f"metric must be 'mse' or 'ms-ssim', got {metric!r}")
    if not (isinstance(pretrained, bool) or pretrained == "base"):
        raise ValueError(
            f"pretrained must be False, True or 'base', got {pretrained!r}"
        )
    net = HM_MODELS[name](*cfgs[name][quality], **{**_G_T.get(name, {}), **kwargs})
    if pretrained is True:
        if metric != "mse":
            raise RuntimeError(f"no HM weights of {name} are released for {metric}")
        masks = {k: v for k, v in net.state_dict().items() if k.endswith(".mask")}
        net.load_state_dict({**masks, **load_released(name, quality)})
    elif pretrained == "base":
        net.load_state_dict(_base_weights(name, quality, metric, progress))
    return net


def load_checkpoint(path: str | Path, name: str | None = None) -> nn.Module:
    """An HM model from a file.

    Args:
        path: What CompressAI's training or ``ExportCodecHook`` wrote.
        name: Its registered name; left out, the weights tell which of the zoo's it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no HM model, or another than ``name``.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    if name and not _is_hm(name):
        raise ValueError(f"{name!r} is no HM model; there are {sorted(HM_MODELS)}")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("state_dict", "network"):
            weights = weights.get(key, weights)
        codec = {k[6:]: v for k, v in weights.items() if k.startswith("codec.")}
        weights = compressai.zoo.load_state_dict(codec or weights)
    except Exception as e:  # unpickling rubbish raises almost anything
        raise ValueError(
            f"{path}: not a CompressAI checkpoint ({str(e).splitlines()[0]}); of an "
            "MMEngine run take the codec.pth.tar in its work folder"
        ) from e
    for candidate in [name] if name else HM_MODELS:
        try:
            return MODELS[candidate].from_state_dict(weights)
        except (RuntimeError, KeyError, IndexError) as e:
            reason = e
    raise ValueError(
        f"{path}: not the weights of {name or 'any of the HM models'}"
        + (f" ({reason})" if name else "")
    )


def _is_hm(name: str) -> bool:
    model = MODELS.get(name)
    return isinstance(model, type) and issubclass(model, HumanMachineMixin)


def _base_weights(name: str, quality: int, metric: str, progress: bool) -> dict:
    base = name.removeprefix("hm-")
    url = model_urls.get(base, {}).get(metric, {}).get(quality)
    if url is None:
        raise RuntimeError(
            f"CompressAI publishes no weights of {base} (quality {quality}, {metric})"
        )
    try:
        state_dict = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=progress, weights_only=True
        )
    except (URLError, OSError) as e:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise RuntimeError(
            f"cannot download {url} ({e}). Fetch that file elsewhere and put it into "
            f"{cache}"
        ) from e
    return compressai.zoo.load_state_dict(state_dict)


image_models = {name: partial(load_model, name) for name in cfgs}

compressai.zoo.image_models.update(image_models)
compressai.zoo.models.update(image_models)
model_architectures.update(HM_MODELS)
