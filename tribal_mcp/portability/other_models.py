"""A mix: vectors that another model made than the one that their bundle or store names.

Such a memory says so itself, in the field `embedding_model` of its JSON form. The name belongs to
the vector and comes and goes with it; the number of dimensions is that of all vectors beside it.
"""

from dataclasses import replace

from tribal_mcp.portability.memory import MADE_BY, MemoryEntry, Vector


def own_model(entry: MemoryEntry) -> str | None:
    """The model that the memory itself names for its vector, or None."""
    name = entry.extra.get(MADE_BY)
    return name if entry.embedding is not None and type(name) is str and name.strip() else None


def with_vector(
    entry: MemoryEntry, vector: Vector | None, made_by: str | None = None
) -> MemoryEntry:
    """The memory with another vector, or without; `made_by` names its model where it is another.

    Where there is no vector before or after, the field names none and is one like all others.
    """
    if vector is None and entry.embedding is None:
        return entry
    extra = entry.extra
    if type(extra.get(MADE_BY)) is str:
        extra = {key: value for key, value in extra.items() if key != MADE_BY}
    if made_by is not None:
        extra = {**extra, MADE_BY: made_by}
    return replace(entry, embedding=vector, extra=extra)
