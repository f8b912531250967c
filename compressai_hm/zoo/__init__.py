"""CompressAI model-zoo entries of the HM models.

Importing this module puts each into ``compressai.zoo.image_models``,
``compressai.zoo.models`` and ``compressai.zoo.image.model_architectures``.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.error import URLError

import compressai.zoo
import torch
from compressai.registry import MODELS
from compressai.zoo.image import model_architectures, model_urls
from torch import nn

from ..codecs import ENTRIES, HM_MODELS, HumanMachineMixin, Steps, read_checkpoint
from ..codecs.container import METRICS
from ..codecs.tables import with_metadata
from .released import SCHEME, load_released, local_path

cfgs: dict[str, dict[int, tuple[int, ...]]] = {
    name: dict(entry.channels) for name, entry in ENTRIES.items()
}
"""Channels (N, M) or (N,) of every entry and quality: those of the base."""


def load_model(
    name: str,
    quality: int,
    metric: str = "mse",
    pretrained: bool | str = False,
    progress: bool = True,
    step: float | None = None,
    **kwargs,
) -> nn.Module:
    """An HM model of the zoo; ``image_models[name]`` is this, with its name filled in.

    Args:
        name: A zoo name such as "hm-cheng2020-anchor".
        quality: Chooses the channels and, with weights, the λ_h they were trained
            at: from 1 (lowest) to 4, 6 or 8. Of an entry with one set of weights for
            every rate, the step of quantisation.
        metric: What the weights were trained for: "mse"; "person", for people and for
            detectors of persons, of hm-mbt2018-vbr-s-v2; or "ms-ssim", of CompressAI's.
        pretrained: True loads released HM weights, from the package;
            "base" loads CompressAI's, with g_t the identity.
        progress: Whether a download shows a progress bar.
        step: The model's step of quantisation, from 1/8 to 16; left out, that of the
            quality.
        **kwargs: For the model: ``g_t_width``, ``g_t_downscale``.

    Raises:
        ValueError: For a name, quality, metric, step or ``pretrained`` that does not
            exist.
        RuntimeError: If there are no such weights, or they cannot be downloaded.
    """
    entry = ENTRIES.get(name)
    if entry is None:
        raise ValueError(f"unknown zoo name {name!r}; there are {sorted(ENTRIES)}")
    if quality not in entry.channels:
        raise ValueError(
            f"{name} has no quality {quality!r}; there are {min(entry.channels)} to "
            f"{max(entry.channels)}"
        )
    if metric not in METRICS:
        known = ", ".join(map(repr, METRICS))
        raise ValueError(f"metric must be one of {known}, got {metric!r}")
    if not (isinstance(pretrained, bool) or pretrained == "base"):
        raise ValueError(
            f"pretrained must be False, True or 'base', got {pretrained!r}"
        )
    net = entry.model(*entry.channels[quality], **{**entry.g_t, **kwargs})
    net.step = entry.steps.get(quality, net.step) if step is None else float(step)
    Steps.of(net.step, (1, 1))  # says what is wrong with it
    if pretrained is True:
        masks = {k: v for k, v in net.state_dict().items() if k.endswith(".mask")}
        net.load_state_dict({**masks, **load_released(name, metric)})
    elif pretrained == "base":
        net.load_state_dict(_base_weights(name, quality, metric, progress))
    return net


def load_checkpoint(path: str | Path, name: str | None = None) -> nn.Module:
    """An HM model from a file.

    Args:
        path: What ``ExportCodecHook``, CompressAI's training or a training loop of
            one's own wrote; or ``compressai_hm://NAME`` in the package.
        name: Its registered name; left out, the file says it, or the weights tell
            which of the zoo's it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no HM model, or another than ``name``.
    """
    if name and not is_hm(name):
        raise ValueError(f"{name!r} is no HM model; there are {sorted(HM_MODELS)}")
    if str(path).startswith(f"{SCHEME}hm-"):
        raise ValueError(f"{path}: of a zoo entry; say its name, --model, instead")
    found = read_checkpoint(local_path(path))
    said = found.architecture
    if said and not name and said not in MODELS:
        raise ValueError(
            f"{path}: it is of {said!r}, which is not registered here; import the "
            "module that registers it first (tools/codec.py: --import)"
        )
    weights = found.part("codec.")
    weights = with_metadata(compressai.zoo.load_state_dict(weights), weights)
    reasons = {}
    own = said if said and is_hm(said) else None
    for candidate in [name or own] if name or own else HM_MODELS:
        options = found.options if candidate == said else {}
        try:
            return _built(candidate, weights, options)
        except _UNFIT as e:
            reasons[candidate] = e
    nearest = min(reasons, key=lambda own: _complaints(reasons[own]))
    near = ""
    if not (name or own):
        near = (
            "of a registered codec of your own say its name, tools/codec.py: --model; "
            f"nearest is {nearest}, "
        )
    what = name or own or "any of the HM models"
    raise ValueError(
        f"{path}: not the weights of {what} ({near}{_sentence(reasons[nearest])})"
    ) from reasons[nearest]


_UNFIT = (
    *(RuntimeError, KeyError, IndexError, TypeError, ValueError, AssertionError),
    OverflowError,
)


def _built(name: str, weights: dict, options: Mapping) -> nn.Module:
    """A model of the weights, made with the options if there are any."""
    if not options:
        return MODELS[name].from_state_dict(weights)
    args, kwargs = options.get("args", ()), options.get("kwargs", {})
    largest = max((max(v.shape, default=0) for v in weights.values()), default=0)
    for number in _numbers([*args, *kwargs.values()]):
        if number > max(largest, len(weights)):  # a forged one must not allocate
            raise ValueError(
                f"its options ask for {number}, more than its weights have anywhere"
            )
    net = MODELS[name](*args, **kwargs)
    net.fit_g_t({k[4:]: v for k, v in weights.items() if k.startswith("g_t.")})
    net.load_state_dict(weights)
    return net


def _numbers(values: Iterable) -> Iterator[float]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _numbers(value)
        elif isinstance(value, (int, float)):
            yield value


def _complaints(error: Exception) -> int:
    """How much does not fit, from torch's list of keys."""
    if not isinstance(error, RuntimeError):
        return 10**6
    return str(error).count('"') + 2 * str(error).count("size mismatch")


def _sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    if isinstance(error, KeyError):
        return f"there is no {error}"
    text = " ".join(lines[1:] or lines) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."


def is_hm(name: str) -> bool:
    """Whether a name in CompressAI's registry is an HM model's."""
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
