"""Models of the package sentence-transformers, on this machine."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread

from tribal_mcp.embedding.base import BATCH, checked
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.vectors import Vector


@dataclass(slots=True)
class SentenceTransformersEmbedder:
    """An `Embedder` that uses the package.

    The model is loaded at its first use, in a thread: that takes seconds.

    Attributes:
        identity: the model.
        prefixes: what it expects before a document, and before a search query, if the model's own
            files don't say.
    """

    identity: EmbeddingMetadata
    prefixes: tuple[str, str] = ("", "")
    _model: Any = None
    _alone: threading.Lock = field(default_factory=threading.Lock)

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:
        """See `Embedder`."""
        vectors: list[Vector] = []
        for start in range(0, len(texts), BATCH):
            part = list(texts[start : start + BATCH])
            found = await anyio.to_thread.run_sync(self._embed, part, query)
            vectors += checked(found, part, self.identity)
        return vectors

    def _embed(self, texts: list[str], query: bool) -> list[Any]:
        with self._alone:
            try:
                if self._model is None:
                    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

                    self._model = SentenceTransformer(self.identity.model_name)
                model = self._model
                own = getattr(model, "prompts", None) or {}
                if any(own.values()):  # the model's files say how
                    return list((model.encode_query if query else model.encode_document)(texts))
                return list(model.encode([self.prefixes[query] + text for text in texts]))
            except ImportError as error:
                raise EmbedderError(
                    f"{self.identity.model_name} can't be used: the package sentence-transformers "
                    "is not installed. Install it where tribal-mcp is installed."
                ) from error
            except Exception as error:  # whatever the package, its model or the network raises
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise EmbedderError(
                    f"{self.identity.model_name} can't be used: {lines[0][:200].rstrip('.')}."
                ) from error
