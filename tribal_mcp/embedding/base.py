"""The interface of every embedding model, and the check of its answers."""

from collections.abc import Sequence
from typing import Any, Protocol

from tribal_mcp.errors import EmbedderError, EntryError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.vectors import Vector, as_vector
from tribal_mcp.text import counted

BATCH = 64
"""The most texts in one request to a model, and embedded between two progress reports."""


class TextRefused(EmbedderError):
    """The model rejects these texts; it may accept others."""


class Embedder(Protocol):
    """A model that makes vectors from texts."""

    @property
    def identity(self) -> EmbeddingMetadata:
        """The model, as recorded with its vectors."""
        ...

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:
        """One float32 vector of shape (identity.dimensions,) for each text, in order.

        Args:
            texts: what to embed.
            query: the texts are search queries, which some models embed differently.

        Raises:
            EmbedderError: a package, a key, the model or the network is missing; the message says
                what to do.
        """
        ...


def checked(
    found: Sequence[Any], texts: Sequence[str], identity: EmbeddingMetadata
) -> list[Vector]:
    """A model's answer as vectors.

    Raises:
        EmbedderError: it is not one finite vector of the right dimensions for each text.
    """
    if len(found) != len(texts):
        raise EmbedderError(
            f"{identity.model_name} returned {counted(len(found), 'vector')} for "
            f"{counted(len(texts), 'text')}. None was stored. Check TRIBAL_EMBEDDING_URL and "
            "TRIBAL_EMBEDDING_MODEL."
        )
    vectors: list[Vector] = []
    for numbers in found:
        try:
            vector = as_vector(numbers)
        except EntryError as error:
            raise EmbedderError(
                f"{identity.model_name} returned an invalid vector: {error}. None was stored."
            ) from None
        if vector.size != identity.dimensions:
            raise EmbedderError(
                f"{identity.model_name} returned vectors with {vector.size} dimensions instead of "
                f"{identity.dimensions}. Set TRIBAL_EMBEDDING_DIMENSIONS to {vector.size}."
            )
        vectors.append(vector)
    return vectors
