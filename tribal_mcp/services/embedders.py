"""Whether a store can be searched by meaning: an embedder can be had, and it is the store's own."""

from collections.abc import Callable
from dataclasses import dataclass

from tribal_mcp.embedding.base import Embedder
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.base import StoreState

EmbedderOf = Callable[[StoreState], Embedder | None]
"""The embedder for a store in that state; raises EmbedderError if the one set can't be had."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """The embedder of a store, or why there is none, in sentences that say what to do."""

    embedder: Embedder | None
    why_not: str = ""

    async def vector(self, text: str, *, query: bool = False) -> tuple[Vector | None, str]:
        """The vector of a text, or None and why there is none."""
        if self.embedder is None:
            return None, self.why_not
        try:
            [vector] = await self.embedder.embed([text], query=query)
        except EmbedderError as error:
            return None, str(error)
        return vector, ""


def meaning_of(state: StoreState, embedder_of: EmbedderOf) -> Meaning:
    """The embedder that makes vectors which may stand beside those of the store."""
    try:
        embedder = embedder_of(state)
    except EmbedderError as error:
        return Meaning(None, str(error))
    if embedder is None:
        return Meaning(None, _nothing_set(state))
    if fits(embedder, state):
        return Meaning(embedder)
    made_by = state.identity or "a model that nobody recorded"
    return Meaning(
        None,
        f"The vectors here were made by {made_by}, and {embedder.identity} is set. Set that model "
        "in TRIBAL_EMBEDDING_MODEL, or move the memories to the set one with tribal_reembed "
        "(all=true).",
    )


def fits(embedder: Embedder, state: StoreState) -> bool:
    """Whether its vectors may stand beside those of the store."""
    if state.identity is None:
        return not state.has_vectors
    return embedder.identity.is_compatible_with(state.identity)


def _nothing_set(state: StoreState) -> str:
    if state.identity is not None:
        return (
            f"The vectors here are of {state.identity}, and no way to embed with it is set. Set "
            "TRIBAL_EMBEDDING_PROVIDER and TRIBAL_EMBEDDING_MODEL."
        )
    if state.has_vectors:
        return (
            "Nobody recorded which model made the vectors here. Set TRIBAL_EMBEDDING_PROVIDER and "
            "TRIBAL_EMBEDDING_MODEL, and embed all anew with tribal_reembed (all=true)."
        )
    return (
        "No embedding model is set. Set TRIBAL_EMBEDDING_PROVIDER and TRIBAL_EMBEDDING_MODEL to "
        "find memories by meaning, too."
    )
