"""The embedder of a store: whether there is one, whether it fits, and texts given to it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tribal_mcp.config import Settings
from tribal_mcp.embedding.base import Embedder, TextRefused
from tribal_mcp.embedding.providers import settings_for
from tribal_mcp.errors import EmbedderError, Stopped
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.services.results import DETAILS
from tribal_mcp.stores.base import StoreState
from tribal_mcp.text import memories

if TYPE_CHECKING:
    from tribal_mcp.services.results.maintenance import ReembedResult

EmbedderOf = Callable[[StoreState], Embedder | None]
"""The embedder for a store in that state; raises EmbedderError if the configured one fails."""

_MINUTE_S = 60

UNRECORDED = "a model that is not recorded"

CHANGE_MODEL = NextStep(
    "To change the model of all memories, run {call}.", "reembed", {"all": True}
)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why there is no vector, and what to do about it."""

    sentence: str = ""
    next_steps: Sequence[NextStep] = ()
    said: bool = False
    """It was said before, and nothing has changed."""

    def __bool__(self) -> bool:
        return bool(self.sentence)


MODEL_CHANGED = Reason("Another process has just changed the store's model.")


@dataclass(frozen=True, slots=True)
class StoreEmbedder:
    """The embedder of a store, or why there is none."""

    embedder: Embedder | None
    why_not: Reason = Reason()

    async def vector(self, text: str, *, query: bool = False) -> tuple[Vector | None, Reason]:
        """The vector of a text, or None and why there is none."""
        if self.embedder is None:
            return None, self.why_not
        try:
            [vector] = await self.embedder.embed([text], query=query)
        except EmbedderError as error:
            return None, Reason(str(error), error.next_steps)
        return vector, Reason()


def embedder_for(
    state: StoreState, embedder_of: EmbedderOf, said: set[str] | None = None
) -> StoreEmbedder:
    """The embedder whose vectors can be compared with those of the store.

    Args:
        state: of the store.
        embedder_of: gives the embedder of a store.
        said: what was said about the settings before; what is said now is added.
    """
    try:
        embedder = embedder_of(state)
    except EmbedderError as error:
        return StoreEmbedder(None, Reason(str(error), error.next_steps))
    if embedder is not None and fits(embedder, state):
        return StoreEmbedder(embedder)
    reason = other_model(embedder, state) if embedder else _not_configured(state)
    if said is not None:
        if reason.sentence in said:
            return StoreEmbedder(None, Reason(reason.sentence, said=True))
        said.add(reason.sentence)
    return StoreEmbedder(None, reason)


def fits(embedder: Embedder, state: StoreState) -> bool:
    """Whether its vectors can be compared with those of the store."""
    if state.identity is None:
        return not state.has_vectors
    return embedder.identity.is_compatible_with(state.identity)


def other_model(embedder: Embedder, state: StoreState) -> Reason:
    """Why an embedder that does not `fit` is not used."""
    return Reason(
        f"The stored vectors were made by {state.identity or UNRECORDED}, and the configured model "
        f"is {embedder.identity}."
        + (f" To use the stored one, {settings_for(state.identity)}." if state.identity else ""),
        [CHANGE_MODEL],
    )


def configured_model(settings: Settings) -> EmbeddingMetadata | None:
    """The model that the settings name, for a store that has not recorded one."""
    if not settings.embedding_model:
        return None
    return EmbeddingMetadata(
        settings.embedding_model,
        settings.dimensions,
        settings.embedding_provider or "unknown",
        datetime.now(UTC).isoformat(),
    )


def _not_configured(state: StoreState) -> Reason:
    if state.identity is not None:
        return Reason(f"For semantic search, {settings_for(state.identity)}.")
    if state.has_vectors:
        return Reason(
            "No model is recorded for the stored vectors. For semantic search, set "
            "TRIBAL_EMBEDDING_PROVIDER=default.",
            [NextStep("Then embed all memories again with {call}.", "reembed", {"all": True})],
        )
    return Reason("For semantic search, set TRIBAL_EMBEDDING_PROVIDER=default.")


@dataclass(slots=True)
class Work:
    """One run of embedding many memories: who embeds them, the counts, the progress.

    Attributes:
        embedder: makes the vectors.
        result: counts.
        on_progress: receives (memories done, in all, the time left as text).
        stop: says after each batch whether to stop there.
        refused: the ids of the memories whose text the model refuses.
    """

    embedder: Embedder
    result: "ReembedResult"
    on_progress: Callable[[int, int, str], None] = lambda _done, _total, _left: None
    stop: Callable[[], bool] = lambda: False
    refused: set[str] = field(default_factory=set)
    _begin: float = field(default_factory=time.monotonic)

    def done(self, done: int, total: int) -> None:
        """Report that this many memories have been processed.

        Raises:
            Stopped: `stop` says so, and there are more.
        """
        left = (time.monotonic() - self._begin) / done * (total - done) if done else 0.0
        self.on_progress(done, total, duration_text(left))
        if self.stop() and done < total:
            raise Stopped(
                f"Stopped after {done:,} of {memories(total)}. To continue, repeat the call."
            )

    async def vectors(self, entries: Sequence[MemoryEntry]) -> list[Vector | None]:
        """The vector of each; None where the model refuses its text."""
        texts = [entry.content for entry in entries]
        try:
            return list(await self.embedder.embed(texts))
        except TextRefused:
            return [await self._one(entry) for entry in entries]

    async def _one(self, entry: MemoryEntry) -> Vector | None:
        try:
            [vector] = await self.embedder.embed([entry.content])
        except TextRefused as error:
            self.refused.add(entry.id)
            self.result.failed += 1
            if len(self.result.failures) < DETAILS:
                self.result.failures.append(f"{entry.id}: {error}")
            return None
        return vector


def duration_text(seconds: float) -> str:
    """A rough duration: `5 s`, `12 min`, `1.5 h`."""
    if seconds < _MINUTE_S:
        return f"{max(1, round(seconds))} s"
    if seconds < _MINUTE_S**2:
        return f"{round(seconds / _MINUTE_S)} min"
    return f"{seconds / _MINUTE_S**2:.1f} h"
