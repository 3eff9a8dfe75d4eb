"""The embedding providers: a closed list. Only our settings choose, never a bundle or a collection.

A key comes from the provider's usual environment variable, and is never written anywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from tribal_mcp.config import Settings, foreign_variable
from tribal_mcp.embedding import chroma_functions as by_chroma
from tribal_mcp.embedding.base import Embedder
from tribal_mcp.embedding.chroma_functions import ChromaEmbedder
from tribal_mcp.embedding.http import HttpEmbedder
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.stores.base import StoreState

MakeFunction = Callable[[str, str], Callable[[], Callable[[list[str]], Any]]]


@dataclass(frozen=True, slots=True)
class Provider:
    """An embedding provider.

    Attributes:
        model: the default model; empty if one must be set.
        dimensions: the dimensions of its vectors.
        key: the environment variable of the key; empty if none is needed.
        url: the base URL; empty if `make` is used instead.
        form: the API at that URL.
        more: additional fields of each request.
        query_more: additional fields for search queries.
        make: creates Chroma's embedding function, from the model and the key.
        extra: the extra of tribal-mcp that installs the package for `make`.
        paid: the provider charges by token.
    """

    model: str = ""
    dimensions: int = 0
    key: str = ""
    url: str = ""
    form: Literal["openai", "ollama"] = "openai"
    more: dict[str, Any] = field(default_factory=dict)
    query_more: dict[str, Any] = field(default_factory=dict)
    make: MakeFunction | None = None
    extra: str = ""
    paid: bool = False


PROVIDERS = {
    "default": Provider("all-MiniLM-L6-v2", 384, make=by_chroma.default),
    "sentence-transformers": Provider(
        "all-MiniLM-L6-v2",
        384,
        make=by_chroma.sentence_transformers,
        extra="sentence-transformers",
    ),
    "openai": Provider(
        "text-embedding-3-small", 1536, "OPENAI_API_KEY", "https://api.openai.com/v1", paid=True
    ),
    "mistral": Provider(
        "mistral-embed", 1024, "MISTRAL_API_KEY", "https://api.mistral.ai/v1", paid=True
    ),
    "jina": Provider(
        "jina-embeddings-v3",
        1024,
        "JINA_API_KEY",
        "https://api.jina.ai/v1",
        more={"task": "retrieval.passage"},
        query_more={"task": "retrieval.query"},
        paid=True,
    ),
    "voyageai": Provider(
        "voyage-3.5",
        1024,
        "VOYAGE_API_KEY",
        "https://api.voyageai.com/v1",
        more={"input_type": "document"},
        query_more={"input_type": "query"},
        paid=True,
    ),
    "ollama": Provider("nomic-embed-text", 768, "", "http://localhost:11434", "ollama"),
    "openai-compatible": Provider(key="OPENAI_API_KEY"),
    "cohere": Provider(
        "embed-multilingual-v3.0",
        1024,
        "COHERE_API_KEY",
        make=by_chroma.cohere,
        extra="cohere",
        paid=True,
    ),
    "google": Provider(
        "gemini-embedding-001",
        3072,
        "GEMINI_API_KEY",
        make=by_chroma.google,
        extra="google",
        paid=True,
    ),
    "huggingface": Provider(
        "sentence-transformers/all-MiniLM-L6-v2",
        384,
        "HF_TOKEN",
        make=by_chroma.huggingface,
    ),
}
"""The providers, by their name in TRIBAL_EMBEDDING_PROVIDER."""


def embedder_of(settings: Settings, state: StoreState) -> Embedder | None:
    """The embedder that the settings name; if none, the default model if it is on this machine.

    The default model has 80 MB and is not downloaded unless it is set.

    Args:
        settings: the settings.
        state: of the store; the default model is only for an empty store or one with its vectors.

    Raises:
        EmbedderError: the provider is unknown, or something is missing.
    """
    name = settings.embedding_provider.lower()
    if name in {"", "onnx"} and not settings.embedding_model:
        default = _create("default", settings)
        fits = (
            default.identity.is_compatible_with(state.identity)
            if state.identity
            else not state.has_vectors
        )
        return default if fits and by_chroma.default_model_is_downloaded() else None
    if not name:
        return None
    return _create("default" if name == "onnx" else name, settings)


def _create(name: str, settings: Settings) -> Embedder:
    if name not in PROVIDERS:
        raise EmbedderError(
            f"TRIBAL_EMBEDDING_PROVIDER is {name!r:.60}, which is not a provider. Set it to one of "
            f"{', '.join(PROVIDERS)}."
        )
    provider = PROVIDERS[name]
    model = settings.embedding_model or provider.model
    dimensions = settings.embedding_dimensions or provider.dimensions
    url = settings.embedding_url or provider.url
    if not model or not (url or provider.make):
        raise EmbedderError(
            f"{name} needs TRIBAL_EMBEDDING_URL, TRIBAL_EMBEDDING_MODEL and "
            "TRIBAL_EMBEDDING_DIMENSIONS. Set all three."
        )
    identity = EmbeddingMetadata(model, dimensions, name, datetime.now(UTC).isoformat())
    key = foreign_variable(provider.key) if provider.key else ""
    if provider.key and not key and name != "openai-compatible":
        raise EmbedderError(f"{name} needs a key. Set {provider.key} to your key.")
    if provider.make:
        return ChromaEmbedder(identity, provider.make(model, key), _help(name, provider))
    more = dict(provider.more)
    if name == "openai" and settings.embedding_dimensions:
        more["dimensions"] = dimensions
    end = "/api/embed" if provider.form == "ollama" else "/embeddings"
    return HttpEmbedder(
        identity, url.rstrip("/") + end, provider.form, key, provider.key, more, provider.query_more
    )


def _help(name: str, provider: Provider) -> str:
    if name == "default":
        return (
            "Its files (80 MB) are downloaded at the first use. Check the network, or set another "
            "TRIBAL_EMBEDDING_PROVIDER."
        )
    key = f" Check the key in {provider.key}." if provider.key else ""
    if not provider.extra:
        return f"Check the network.{key}"
    return f"If its package is missing, run: pip install 'tribal-mcp[{provider.extra}]'.{key}"


def is_paid(embedder: Embedder) -> bool:
    """Whether its provider charges by token."""
    provider = PROVIDERS.get(embedder.identity.provider)
    return provider is not None and provider.paid
