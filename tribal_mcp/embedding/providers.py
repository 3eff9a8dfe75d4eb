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
from tribal_mcp.portability.known_models import dimensions_of
from tribal_mcp.portability.manifest import EmbeddingMetadata, same_model
from tribal_mcp.stores.base import StoreState

MakeFunction = Callable[[str, str], Callable[[], Callable[[list[str]], Any]]]


@dataclass(frozen=True, slots=True)
class Provider:
    """An embedding provider.

    Attributes:
        model: the default model; empty if one must be set.
        key: the environment variable of the key; empty if none is needed.
        url: the base URL; empty if `make` is used instead.
        form: the API at that URL.
        more: additional fields of each request.
        query_more: additional fields for search queries.
        make: creates Chroma's embedding function, from the model and the key.
        package: the package that `make` needs, besides the dependencies of this one.
        paid: the provider charges by token.
    """

    model: str = ""
    key: str = ""
    url: str = ""
    form: Literal["openai", "ollama"] = "openai"
    more: dict[str, Any] = field(default_factory=dict)
    query_more: dict[str, Any] = field(default_factory=dict)
    make: MakeFunction | None = None
    package: str = ""
    paid: bool = False


PROVIDERS = {
    "default": Provider("all-MiniLM-L6-v2", make=by_chroma.default),
    "sentence-transformers": Provider(
        "all-MiniLM-L6-v2",
        make=by_chroma.sentence_transformers,
        package="sentence-transformers",
    ),
    "openai": Provider(
        "text-embedding-3-small", "OPENAI_API_KEY", "https://api.openai.com/v1", paid=True
    ),
    "mistral": Provider("mistral-embed", "MISTRAL_API_KEY", "https://api.mistral.ai/v1", paid=True),
    "jina": Provider(
        "jina-embeddings-v3",
        "JINA_API_KEY",
        "https://api.jina.ai/v1",
        more={"task": "retrieval.passage"},
        query_more={"task": "retrieval.query"},
        paid=True,
    ),
    "voyageai": Provider(
        "voyage-3.5",
        "VOYAGE_API_KEY",
        "https://api.voyageai.com/v1",
        more={"input_type": "document"},
        query_more={"input_type": "query"},
        paid=True,
    ),
    "ollama": Provider("nomic-embed-text", "", "http://localhost:11434", "ollama"),
    "openai-compatible": Provider(key="OPENAI_API_KEY"),
    "cohere": Provider(
        "embed-multilingual-v3.0",
        "COHERE_API_KEY",
        make=by_chroma.cohere,
        package="cohere",
        paid=True,
    ),
    "google": Provider(
        "gemini-embedding-001",
        "GEMINI_API_KEY",
        make=by_chroma.google,
        package="google-generativeai",
        paid=True,
    ),
    "huggingface": Provider(
        "sentence-transformers/all-MiniLM-L6-v2",
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
    dimensions = settings.dimensions or dimensions_of(provider.model)
    url = settings.embedding_url or provider.url
    if not model or not (url or provider.make):
        raise EmbedderError(
            f"{name} needs TRIBAL_EMBEDDING_URL and TRIBAL_EMBEDDING_MODEL. Set both."
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
    if not provider.package:
        return f"Check the network.{key}"
    package = provider.package
    return f"If the package {package} is missing, install it where tribal-mcp is installed.{key}"


def settings_for(model: EmbeddingMetadata) -> str:
    """The settings that make vectors of this model, as an instruction without a final period."""
    names = [n for n, p in PROVIDERS.items() if p.model and same_model(p.model, model.model_name)]
    provider = "default" if model.provider == "onnx" else model.provider
    if provider not in PROVIDERS:
        provider = names[0] if names else ""
    settings = [f"TRIBAL_EMBEDDING_PROVIDER{'=' if provider else ''}{provider}"]
    if provider not in names:
        settings.append(f"TRIBAL_EMBEDDING_MODEL={model.model_name:.80}")
        if dimensions_of(model.model_name) != model.dimensions:
            settings.append(f"TRIBAL_EMBEDDING_DIMENSIONS={model.dimensions}")
        if provider and not (PROVIDERS[provider].url or PROVIDERS[provider].make):
            settings.append("TRIBAL_EMBEDDING_URL")
    if provider and (key := PROVIDERS[provider].key) and not foreign_variable(key):
        settings.append(key)
    *first, last = settings
    return f"set {', '.join(first)} and {last}" if first else f"set {last}"


def is_paid(embedder: Embedder) -> bool:
    """Whether its provider charges by token."""
    provider = PROVIDERS.get(embedder.identity.provider)
    return provider is not None and provider.paid
