"""Models that Chroma's own embedding functions bring: on this machine, or by a provider's package.

Only those on the closed list of `providers` are made, and only by our settings. They block, and
are slow to make, so both happens in a thread, and the first time they are needed.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread

from tribal_mcp.embedding.base import checked
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.vectors import Vector

TEXTS = 64
"""Texts that are embedded together."""


@dataclass(slots=True)
class ChromaEmbedder:
    """An `Embedder` that asks one of Chroma's embedding functions.

    Attributes:
        identity: the model.
        make: makes the function.
        help: what to do when it can't be made or fails.
    """

    identity: EmbeddingMetadata
    make: Callable[[], Callable[[list[str]], Any]]
    help: str
    _function: Callable[[list[str]], Any] | None = None
    _alone: threading.Lock = field(default_factory=threading.Lock)

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:  # noqa: ARG002
        """See `Embedder`."""
        vectors: list[Vector] = []
        for start in range(0, len(texts), TEXTS):
            part = list(texts[start : start + TEXTS])
            vectors += checked(await anyio.to_thread.run_sync(self._ask, part), part, self.identity)
        return vectors

    def _ask(self, texts: list[str]) -> Sequence[Any]:
        with self._alone:
            try:
                if self._function is None:
                    self._function = self.make()
                return list(self._function(texts))
            except Exception as error:
                raise EmbedderError(
                    f"{self.identity.model_name} can't embed: {_words(error)}. {self.help}"
                ) from error


def _words(error: Exception) -> str:
    """The first line of what another's code said, without an end of its own."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")


def default_model_is_here() -> bool:
    """Whether the files of the default model were fetched before."""
    place = Path.home() / ".cache" / "chroma" / "onnx_models" / "all-MiniLM-L6-v2" / "onnx"
    return (place / "model.onnx").is_file()


def default(_model: str, _key: str) -> Callable[[], Callable[[list[str]], Any]]:
    """Chroma's default: all-MiniLM-L6-v2 by ONNX, fetched once."""

    def make() -> Callable[[list[str]], Any]:
        from chromadb.utils.embedding_functions import (  # noqa: PLC0415 - takes seconds
            ONNXMiniLM_L6_V2,
        )

        return ONNXMiniLM_L6_V2(preferred_providers=["CPUExecutionProvider"])

    return make


def sentence_transformers(model: str, _key: str) -> Callable[[], Callable[[list[str]], Any]]:
    """Models of the package sentence-transformers, on this machine."""

    def make() -> Callable[[list[str]], Any]:
        from chromadb.utils.embedding_functions import (  # noqa: PLC0415 - takes seconds
            SentenceTransformerEmbeddingFunction,
        )

        return SentenceTransformerEmbeddingFunction(model_name=model)

    return make


def cohere(model: str, key: str) -> Callable[[], Callable[[list[str]], Any]]:
    """Cohere's models."""

    def make() -> Callable[[list[str]], Any]:
        from chromadb.utils.embedding_functions import (  # noqa: PLC0415 - takes seconds
            CohereEmbeddingFunction,
        )

        return CohereEmbeddingFunction(api_key=key, model_name=model)

    return make


def google(model: str, key: str) -> Callable[[], Callable[[list[str]], Any]]:
    """Google's Gemini models."""

    def make() -> Callable[[list[str]], Any]:
        from chromadb.utils.embedding_functions import (  # noqa: PLC0415 - takes seconds
            GoogleGenerativeAiEmbeddingFunction,
        )

        return GoogleGenerativeAiEmbeddingFunction(api_key=key, model_name=model)

    return make


def huggingface(model: str, key: str) -> Callable[[], Callable[[list[str]], Any]]:
    """Models that Hugging Face serves."""

    def make() -> Callable[[list[str]], Any]:
        from chromadb.utils.embedding_functions import (  # noqa: PLC0415 - takes seconds
            HuggingFaceEmbeddingFunction,
        )

        return HuggingFaceEmbeddingFunction(api_key=key, model_name=model)

    return make
