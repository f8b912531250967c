"""What a sweep's config may say."""


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
