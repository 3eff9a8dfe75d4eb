"""Who may embed: a closed list, chosen by our settings alone, never by a bundle or a stored schema.

A key comes from the provider's usual environment variable, and is written nowhere.
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
    """Someone who embeds.

    Attributes:
        model: theirs, if none is set; empty where one has to be.
        dimensions: of its vectors.
        key: the variable that their key stands in; empty where none is needed.
        url: where they are asked, without the end that says for what; empty if `make` asks them.
        form: how they are asked.
        more: fields of a request besides.
        query_more: fields of a question besides.
        make: makes Chroma's embedding function, of the model and the key.
        extra: our extra that installs the package which that takes.
        paid: they count tokens.
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
"""By the name that TRIBAL_EMBEDDING_PROVIDER takes."""


def embedder_of(settings: Settings, state: StoreState) -> Embedder | None:
    """The embedder that is set; with none set the default one, if its model is on this machine.

    Its model is not fetched unasked, in the middle of something else: it has 80 MB.

    Args:
        settings: what is set.
        state: of the store; the default model is for one that is empty or has its vectors.

    Raises:
        EmbedderError: what is set is not on the list, or something is missing.
    """
    name = settings.embedding_provider.lower()
    if name in {"", "onnx"} and not settings.embedding_model:
        made = _made("default", settings)
        fits = (
            made.identity.is_compatible_with(state.identity)
            if state.identity
            else not state.has_vectors
        )
        return made if fits and by_chroma.default_model_is_here() else None
    if not name:
        return None
    return _made("default" if name == "onnx" else name, settings)


def _made(name: str, settings: Settings) -> Embedder:
    if name not in PROVIDERS:
        raise EmbedderError(
            f"TRIBAL_EMBEDDING_PROVIDER is {name!r:.60}; those that embed are "
            f"{', '.join(PROVIDERS)}. Set one of them."
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
        raise EmbedderError(f"{name} needs a key. Set {provider.key} to yours.")
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
            "Its files, 80 MB, are fetched once, for which the network is needed; or set another "
            "TRIBAL_EMBEDDING_PROVIDER."
        )
    key = f" Look at the key in {provider.key}." if provider.key else ""
    package = f"It needs its package: pip install 'tribal-mcp[{provider.extra}]'."
    return f"{package if provider.extra else 'Look whether the network is there.'}{key}"


def is_paid(embedder: Embedder) -> bool:
    """Whether its provider counts tokens."""
    provider = PROVIDERS.get(embedder.identity.provider)
    return provider is not None and provider.paid
