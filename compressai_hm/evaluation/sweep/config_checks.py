"""Checks of a sweep's config and device."""

import torch


def check_keys(what: str, entry: dict, known: set[str]) -> None:
    """Refuses unknown keys: a misspelt one would silently have no effect.

    Args:
        what: Name of the entry, for the message.
        entry: A dict of the config.
        known: The keys that have an effect.

    Raises:
        ValueError: If the entry has another key.
    """
    unknown = set(entry) - known
    if unknown:
        raise ValueError(f"{what} has no {sorted(unknown)}; there are {sorted(known)}")


def check_device(device: str) -> None:
    """Raises ValueError if ``device`` cannot be used."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        reason = str(e).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used: {reason}") from e
