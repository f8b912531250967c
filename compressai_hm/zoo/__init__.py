"""Entries of the HM models in CompressAI's model zoo.

Importing this module adds each of them to ``compressai.zoo.image_models``,
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

from ..bitstream.format import METRICS
from ..entropy import QuantSteps
from ..entropy.mirrored_tables import with_metadata
from ..models.checkpoint import read_checkpoint
from ..models.entries import ENTRIES, HM_MODELS
from ..models.human_machine import HumanMachineMixin
from .released import SCHEME, load_released, local_path

cfgs: dict[str, dict[int, tuple[int, ...]]] = {
    name: dict(entry.channels) for name, entry in ENTRIES.items()
}
"""Channels of every entry and quality, (N, M) or (N,)."""


def load_model(
    name: str,
    quality: int,
    metric: str = "mse",
    pretrained: bool | str = False,
    progress: bool = True,
    step: float | None = None,
    **kwargs,
) -> nn.Module:
    """Makes an HM model of the zoo.

    ``image_models[name]`` is this function for one name.

    Args:
        name: A zoo name such as "hm-cheng2020-anchor".
        quality: Quality from 1 (lowest) to 4, 6 or 8. It chooses the channels and the
            λ_h of the weights' training. For an entry with one set of weights for every
            rate it chooses the quantization step.
        metric: What the weights were trained for: "mse"; "person", for people and for
            detectors of persons (hm-compact); or "ms-ssim" (CompressAI's
            weights). Defaults to "mse".
        pretrained: True loads released HM weights from the package; "base" loads
            CompressAI's weights, with g_t the identity. Defaults to False.
        progress: Whether a download shows a progress bar. Defaults to True.
        step: The model's quantization step, from 1/8 to 16. Defaults to None, that of
            the quality.
        **kwargs: Further arguments of the model: ``g_t_width`` and ``g_t_downscale``.

    Returns:
        The model.

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
    QuantSteps.nearest(net.step, (1, 1))  # checks it
    if pretrained is True:
        masks = {k: v for k, v in net.state_dict().items() if k.endswith(".mask")}
        net.load_state_dict({**masks, **load_released(name, metric)})
    elif pretrained == "base":
        net.load_state_dict(_load_base_weights(name, quality, metric, progress))
    return net


def load_checkpoint(path: str | Path, name: str | None = None) -> nn.Module:
    """Loads an HM model from a file.

    Args:
        path: A file of ``ExportCodecHook``, CompressAI's training or another training
            loop, or ``compressai_hm://NAME`` for one in the package.
        name: Registered name of the model. Defaults to None: the name in the file, or
            the model of the zoo that the weights fit.

    Returns:
        The model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no HM model, or another one than ``name``.
    """
    if name and not is_hm(name):
        raise ValueError(f"{name!r} is no HM model; there are {sorted(HM_MODELS)}")
    if str(path).startswith(f"{SCHEME}hm-"):
        raise ValueError(f"{path}: of a zoo entry; say its name, --model, instead")
    checkpoint = read_checkpoint(local_path(path))
    architecture = checkpoint.architecture
    if architecture and not name and architecture not in MODELS:
        raise ValueError(
            f"{path}: it is of {architecture!r}, which is not registered here; import "
            "the module that registers it first (tools/codec.py: --import)"
        )
    weights = checkpoint.part("codec.")
    weights = with_metadata(compressai.zoo.load_state_dict(weights), weights)
    reasons = {}
    known = name or (architecture if architecture and is_hm(architecture) else None)
    for candidate in [known] if known else HM_MODELS:
        options = checkpoint.options if candidate == architecture else {}
        try:
            return _build(candidate, weights, options)
        except _UNFIT as e:
            reasons[candidate] = e
    nearest = min(reasons, key=lambda name: _count_complaints(reasons[name]))
    near = ""
    if not known:
        near = (
            "name a registered codec of your own with tools/codec.py: --model; "
            f"nearest is {nearest}, "
        )
    what = known or "any of the HM models"
    raise ValueError(
        f"{path}: not the weights of {what} ({near}{_describe_error(reasons[nearest])})"
    ) from reasons[nearest]


_UNFIT = (
    *(RuntimeError, KeyError, IndexError, TypeError, ValueError, AssertionError),
    OverflowError,
)


def _build(name: str, weights: dict, options: Mapping) -> nn.Module:
    """Builds a model with the options, if there are any, and loads its weights."""
    if not options:
        return MODELS[name].from_state_dict(weights)
    args, kwargs = options.get("args", ()), options.get("kwargs", {})
    largest = max((max(v.shape, default=0) for v in weights.values()), default=0)
    for number in _iterate_numbers([*args, *kwargs.values()]):
        if number > max(largest, len(weights)):  # forged options must not allocate
            raise ValueError(
                f"its options ask for {number}, more than its weights have anywhere"
            )
    net = MODELS[name](*args, **kwargs)
    net.fit_g_t({k[4:]: v for k, v in weights.items() if k.startswith("g_t.")})
    net.load_state_dict(weights)
    return net


def _iterate_numbers(values: Iterable) -> Iterator[float]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _iterate_numbers(value)
        elif isinstance(value, (int, float)):
            yield value


def _count_complaints(error: Exception) -> int:
    """Counts what does not fit in torch's error message."""
    if not isinstance(error, RuntimeError):
        return 10**6
    return str(error).count('"') + 2 * str(error).count("size mismatch")


def _describe_error(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    if isinstance(error, KeyError):
        return f"there is no {error}"
    text = " ".join(lines[1:] or lines) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."


def is_hm(name: str) -> bool:
    """Says whether a name in CompressAI's registry is that of an HM model.

    Args:
        name: The name.
    """
    model = MODELS.get(name)
    return isinstance(model, type) and issubclass(model, HumanMachineMixin)


def _load_base_weights(name: str, quality: int, metric: str, progress: bool) -> dict:
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
