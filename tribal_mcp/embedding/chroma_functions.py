"""Models that run through Chroma's embedding functions, on this machine or in a provider's package.

Only the functions in the closed list of `providers` are created, and only as our settings say. They
block and are slow to create, so they are created at their first use, and both happens in a thread.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread

from tribal_mcp.embedding.base import BATCH, checked
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.chroma.loading import load_chroma


@dataclass(slots=True)
class ChromaEmbedder:
    """An `Embedder` that uses one of Chroma's embedding functions.

    Attributes:
        identity: the model.
        make: creates the function.
        help: what to do if it can't be created or fails.
    """

    identity: EmbeddingMetadata
    make: Callable[[], Callable[[list[str]], Any]]
    help: str
    _function: Callable[[list[str]], Any] | None = None
    _alone: threading.Lock = field(default_factory=threading.Lock)

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:  # noqa: ARG002
        """See `Embedder`."""
        vectors: list[Vector] = []
        for start in range(0, len(texts), BATCH):
            part = list(texts[start : start + BATCH])
            vectors += checked(
                await anyio.to_thread.run_sync(self._embed, part), part, self.identity
            )
        return vectors

    def _embed(self, texts: list[str]) -> Sequence[Any]:
        with self._alone:
            try:
                if self._function is None:
                    self._function = self.make()
                return list(self._function(texts))
            except Exception as error:
                raise EmbedderError(
                    f"{self.identity.model_name} can't be used: {_reason(error)}. {self.help}"
                ) from error


def _reason(error: Exception) -> str:
    """Why a function failed: the system's or the provider's reason, but no text of Chroma's."""
    if isinstance(error.__context__, ImportError):
        return "its package is not installed"
    lines = str(error).strip().splitlines()
    if isinstance(error, ValueError) or not lines:  # Chroma raises ValueError
        return type(error).__name__
    return lines[0][:200].rstrip(".")


def default_model_is_downloaded() -> bool:
    """Whether the files of the default model are on this machine."""
    folder = Path.home() / ".cache" / "chroma" / "onnx_models" / "all-MiniLM-L6-v2" / "onnx"
    return (folder / "model.onnx").is_file()


def default(_model: str, _key: str) -> Callable[[], Callable[[list[str]], Any]]:
    """Chroma's default, all-MiniLM-L6-v2 on ONNX, downloaded once."""

    def make() -> Callable[[list[str]], Any]:
        load_chroma()
        from chromadb.utils.embedding_functions import (  # noqa: PLC0415 - takes seconds
            ONNXMiniLM_L6_V2,
        )

        return ONNXMiniLM_L6_V2(preferred_providers=["CPUExecutionProvider"])

    return make


def sentence_transformers(model: str, _key: str) -> Callable[[], Callable[[list[str]], Any]]:
    """Models of the package sentence-transformers, on this machine."""

    def make() -> Callable[[list[str]], Any]:
        load_chroma()
        from chromadb.utils.embedding_functions import (  # noqa: PLC0415 - takes seconds
            SentenceTransformerEmbeddingFunction,
        )

        return SentenceTransformerEmbeddingFunction(model_name=model)

    return make


def cohere(model: str, key: str) -> Callable[[], Callable[[list[str]], Any]]:
    """Cohere's models."""

    def make() -> Callable[[list[str]], Any]:
        load_chroma()
        from chromadb.utils.embedding_functions import (  # noqa: PLC0415 - takes seconds
            CohereEmbeddingFunction,
        )

        return CohereEmbeddingFunction(api_key=key, model_name=model)

    return make


def google(model: str, key: str) -> Callable[[], Callable[[list[str]], Any]]:
    """Google's Gemini models."""

    def make() -> Callable[[list[str]], Any]:
        load_chroma()
        from chromadb.utils.embedding_functions import (  # noqa: PLC0415 - takes seconds
            GoogleGenerativeAiEmbeddingFunction,
        )

        return GoogleGenerativeAiEmbeddingFunction(api_key=key, model_name=model)

    return make


def huggingface(model: str, key: str) -> Callable[[], Callable[[list[str]], Any]]:
    """Models of Hugging Face's inference API."""

    def make() -> Callable[[list[str]], Any]:
        load_chroma()
        from chromadb.utils.embedding_functions import (  # noqa: PLC0415 - takes seconds
            HuggingFaceEmbeddingFunction,
        )

        return HuggingFaceEmbeddingFunction(api_key=key, model_name=model)

    return make
