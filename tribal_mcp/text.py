"""Text that every layer writes: counts with their nouns in the right number."""


def counted(count: int, one: str, many: str = "") -> str:
    """A count with its noun, and with its verb where the two change together.

    `counted(1, "entry", "entries")` is `1 entry`, `counted(2, "memory has", "memories have")` is
    `2 memories have`.

    Args:
        count: how many.
        one: what follows 1.
        many: what follows any other count; `one` with an s if not given.
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def memories(count: int) -> str:
    """A count of memories."""
    return counted(count, "memory", "memories")
