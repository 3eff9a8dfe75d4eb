"""What everything that embeds does for the services."""

from collections.abc import Sequence
from typing import Protocol

from tribal_mcp.portability.embedding_metadata import EmbeddingMetadata
from tribal_mcp.portability.memory import Vector


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
