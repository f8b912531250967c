"""What a sweep's config may say, and where it may run."""

import torch


def check_keys(what: str, entry: dict, known: set[str]) -> None:
    """Refuses unknown keys: a misspelt one would be silently without effect.

    Args:
        what: Whose keys they are, for the message.
        entry: A dict of the config.
        known: The keys that have an effect.

    Raises:
        ValueError: If there is another.
    """
    unknown = set(entry) - known
    if unknown:
        raise ValueError(f"{what} has no {sorted(unknown)}; there are {sorted(known)}")


def check_device(device: str) -> None:
    """Raises ValueError if there is no such device."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        reason = str(e).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used: {reason}") from e
