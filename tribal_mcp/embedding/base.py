"""What everything that embeds does for the services, and what is held against what comes back."""

from collections.abc import Sequence
from typing import Any, Protocol

from tribal_mcp.errors import EmbedderError, EntryError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.vectors import Vector, as_vector


class TextRefused(EmbedderError):
    """The model takes no such text; it may take others."""


class Embedder(Protocol):
    """A model that makes vectors of text."""

    @property
    def identity(self) -> EmbeddingMetadata:
        """The model, as it is recorded with its vectors."""
        ...

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:
        """One float32 vector of `identity.dimensions` numbers for each text, in order.

        Args:
            texts: what to embed.
            query: they are what somebody looks for; some models embed questions otherwise.

        Raises:
            EmbedderError: a package, a key, the model or the network is missing; the
                message says what to do.
        """
        ...


def checked(
    found: Sequence[Any], texts: Sequence[str], identity: EmbeddingMetadata
) -> list[Vector]:
    """What a model answered, as vectors.

    Raises:
        EmbedderError: it is not one finite vector of the right size for each text.
    """
    if len(found) != len(texts):
        raise EmbedderError(
            f"{identity.model_name} was asked for {len(texts)} vectors and gave {len(found)}. "
            "Nothing of it was stored. Look at TRIBAL_EMBEDDING_URL and TRIBAL_EMBEDDING_MODEL."
        )
    vectors: list[Vector] = []
    for numbers in found:
        try:
            vector = as_vector(numbers)
        except EntryError as error:
            raise EmbedderError(
                f"What {identity.model_name} gave is no vector: {error}. Nothing of it was stored."
            ) from None
        if vector.size != identity.dimensions:
            raise EmbedderError(
                f"{identity.model_name} gave a vector of {vector.size} dimensions, not of "
                f"{identity.dimensions}. Set TRIBAL_EMBEDDING_DIMENSIONS to what the model gives."
            )
        vectors.append(vector)
    return vectors
