"""Whether a bundle's vectors are of the model that it names: a few are made anew and compared."""

from statistics import median

import anyio.to_thread
import numpy as np

from tribal_mcp.embedding.base import Embedder
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.memory import MemoryEntry, own_model
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.services.importing.sources import EntrySource

SAMPLES = 5
"""Memories of which the vectors are compared."""

AGREES = 0.9
"""The least cosine, in the middle, of vectors that one model made of the same texts: it gives the
same ones but for rounding, and a few texts may be cut off elsewhere. Others are near nothing."""

_FIRST = 500


async def wrong_label(source: EntrySource, embedder: Embedder | None) -> tuple[bool, str]:
    """Whether the vectors are clearly not of the model that the bundle names; and what to know."""
    named = source.manifest.embedding
    if embedder is None or named is None or not named.is_compatible_with(embedder.identity):
        return False, ""
    batches = source.batches(_FIRST)
    first = await anyio.to_thread.run_sync(lambda: list(next(batches, [])))
    able = [
        entry
        for entry in first
        if isinstance(entry, MemoryEntry)
        and entry.embedding is not None
        and entry.content.strip()
        and own_model(entry) is None
    ]
    sample = able[:: max(1, len(able) // SAMPLES)][:SAMPLES]
    if not sample:
        return False, ""
    try:
        made = await embedder.embed([entry.content for entry in sample])
    except EmbedderError as error:
        return False, f"Whether the vectors are of {named} could not be checked. {error}"
    middle = median(_cosine(e.embedding, v) for e, v in zip(sample, made, strict=True))
    if middle >= AGREES:
        return False, ""
    return True, (
        f"The bundle names {named}, but that model makes other vectors of its texts (cosine "
        f"{middle:.2f} in the middle of {len(sample)}): they are of another model."
    )


def _cosine(one: Vector | None, two: Vector) -> float:
    assert one is not None  # noqa: S101 - only such were taken
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(two))
    return float(np.dot(one, two)) / lengths if lengths and one.size == two.size else 0.0
