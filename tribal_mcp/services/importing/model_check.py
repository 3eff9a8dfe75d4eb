"""Checks that the model a bundle names made its vectors: embeds a few texts and compares."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import anyio.to_thread

from tribal_mcp.embedding.base import Embedder
from tribal_mcp.embedding.providers import without_prefixes
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.memory import MemoryEntry, own_model
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.services.importing.sources import EntrySource
from tribal_mcp.text import counted

SAMPLES = 5
"""Memories whose vectors are compared."""

AGREES = 0.9
"""The least median cosine of vectors that one model made from the same texts. They are equal but
for rounding, and for a few texts that may be truncated elsewhere; those of other models are near 0.
"""

_FIRST = 500


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """The result of the check.

    Attributes:
        differs: another model than the named one clearly made the vectors.
        note: a sentence for the user; empty if there is nothing to say.
    """

    differs: bool = False
    note: str = ""


async def check_model(source: EntrySource, embedder: Embedder | None) -> ModelCheck:
    """Compare a few vectors with new ones, if the embedder has the model that the bundle names."""
    named = source.manifest.embedding
    if embedder is None or named is None or not named.is_compatible_with(embedder.identity):
        return ModelCheck()
    batches = source.batches(_FIRST)
    first = await anyio.to_thread.run_sync(lambda: list(next(batches, [])))
    usable = [
        entry
        for entry in first
        if isinstance(entry, MemoryEntry)
        and entry.embedding is not None
        and entry.content.strip()
        and own_model(entry) is None
    ]
    sample = usable[:: max(1, len(usable) // SAMPLES)][:SAMPLES]
    if not sample:
        return ModelCheck()
    try:
        middle = await _median_cosine(embedder, sample)
        if middle < AGREES and (plain := without_prefixes(embedder)) is not None:
            middle = max(middle, await _median_cosine(plain, sample))
    except EmbedderError as error:
        return ModelCheck(note=f"Can't check that {named} made the vectors. {error}")
    if middle >= AGREES:
        return ModelCheck()
    return ModelCheck(
        differs=True,
        note=f"The bundle names {named}, but another model made its vectors: the median cosine "
        f"with new vectors of {counted(len(sample), 'text')} is {middle:.2f}.",
    )


async def _median_cosine(embedder: Embedder, sample: Sequence[MemoryEntry]) -> float:
    made = await embedder.embed([entry.content for entry in sample])
    return median(_cosine(e.embedding, v) for e, v in zip(sample, made, strict=True))


def _cosine(one: Vector | None, two: Vector) -> float:
    import numpy as np

    assert one is not None  # noqa: S101 - the sample has vectors
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(two))
    return float(np.dot(one, two)) / lengths if lengths and one.size == two.size else 0.0
