"""The entries of the model zoo.

To add a codec to the zoo, write a class with ``@zoo_entry`` above it in a module that
``models/__init__.py`` imports; names, qualities, registry, zoo and exports follow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from compressai.registry import register_model

from .human_machine import HumanMachineMixin


@dataclass(frozen=True)
class ZooEntry:
    """One entry of the model zoo.

    Args:
        model: The class.
        channels: Positional arguments of the class by quality.
        g_t: Arguments of g_t that are not the defaults. Defaults to none.
        steps: Quantization step by quality for an entry with one set of weights.
            Defaults to none: each quality has its weights.
        released: Metrics for which the package has trained weights. Defaults to none.
    """

    model: type[HumanMachineMixin]
    channels: Mapping[int, tuple[int, ...]]
    g_t: Mapping[str, int] = field(default_factory=dict)
    steps: Mapping[int, float] = field(default_factory=dict)
    released: tuple[str, ...] = ()


ENTRIES: dict[str, ZooEntry] = {}
"""Entries by zoo name, which is also the name in CompressAI's registry."""

HM_MODELS: dict[str, type[HumanMachineMixin]] = {}
"""Classes by zoo name."""

DEFAULT_MODEL, DEFAULT_QUALITY = "hm-compact", 6
"""Defaults of the command line and the app."""

EVERY_RATE = {1: 5.6, 2: 3.9, 3: 2.7, 4: 1.9, 5: 1.3, 6: 0.9, 7: 0.62, 8: 0.43}
"""Quantization steps by quality of entries with one set of weights."""


def zoo_entry(
    name: str, channels: Mapping[int, tuple[int, ...]], **options
) -> Callable:
    """Returns a decorator that registers a class in CompressAI's registry and the zoo.

    Args:
        name: The zoo name.
        channels: Positional arguments of the class by quality.
        **options: The other arguments of :class:`ZooEntry`.
    """

    def add(model: type[HumanMachineMixin]) -> type[HumanMachineMixin]:
        ENTRIES[name] = ZooEntry(model, channels, **options)
        HM_MODELS[name] = model
        return register_model(name)(model)

    return add
