"""The embedding providers: a closed list. Only our settings choose, never a bundle or a collection.

A key comes from the provider's usual environment variable, and is never written anywhere.
"""

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tribal_mcp.config import Settings, foreign_variable
from tribal_mcp.embedding.base import Embedder
from tribal_mcp.embedding.model_files import (
    DEFAULT,
    GET_SMALL,
    SMALL,
    folder_of,
    has_small_weights,
    is_installed,
)
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.known_models import dimensions_of
from tribal_mcp.portability.manifest import EmbeddingMetadata, same_model
from tribal_mcp.stores.base import StoreState

if TYPE_CHECKING:
    from tribal_mcp.embedding.http import Form


@dataclass(frozen=True, slots=True)
class Provider:
    """An embedding provider.

    Attributes:
        model: the default model; empty if one must be set.
        key: the environment variable of the key; empty if none is needed.
        url: the base URL; empty if the model runs in this process or a URL must be set.
        end: what follows the base URL; `{model}` is the model.
        form: the API at that URL.
        more: additional fields of each request.
        query_more: additional fields for search queries.
        local: the model runs in this process.
        package: the package that it needs, besides the dependencies of this one.
        paid: the provider charges by token.
    """

    model: str = ""
    key: str = ""
    url: str = ""
    end: str = "/embeddings"
    form: "Form" = "openai"
    more: dict[str, Any] = field(default_factory=dict)
    query_more: dict[str, Any] = field(default_factory=dict)
    local: bool = False
    package: str = ""
    paid: bool = False


PROVIDERS = {
    "default": Provider(DEFAULT, local=True),
    "sentence-transformers": Provider(
        "all-MiniLM-L6-v2", local=True, package="sentence-transformers"
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
    "ollama": Provider("nomic-embed-text", "", "http://localhost:11434", "/api/embed", "ollama"),
    "openai-compatible": Provider(key="OPENAI_API_KEY"),
    "cohere": Provider(
        "embed-multilingual-v3.0",
        "COHERE_API_KEY",
        "https://api.cohere.com/v2",
        "/embed",
        "cohere",
        more={"input_type": "search_document", "embedding_types": ["float"]},
        query_more={"input_type": "search_query"},
        paid=True,
    ),
    "google": Provider(
        "gemini-embedding-001",
        "GEMINI_API_KEY",
        "https://generativelanguage.googleapis.com/v1beta",
        "/models/{model}:batchEmbedContents",
        "google",
        more={"taskType": "RETRIEVAL_DOCUMENT"},
        query_more={"taskType": "RETRIEVAL_QUERY"},
        paid=True,
    ),
    "huggingface": Provider(
        "sentence-transformers/all-MiniLM-L6-v2",
        "HF_TOKEN",
        "https://router.huggingface.co/hf-inference",
        "/models/{model}/pipeline/feature-extraction",
        "huggingface",
    ),
}
"""The providers, by their name in TRIBAL_EMBEDDING_PROVIDER."""

_QUESTION = "Represent this sentence for searching relevant passages: "
_PREFIXES = (
    (re.compile(r"\be5-(?!mistral)"), "passage: ", "query: "),
    (re.compile("nomic-embed-text"), "search_document: ", "search_query: "),
    (re.compile("mxbai-embed-large|bge-(small|base|large)-en"), "", _QUESTION),
    (re.compile("embeddinggemma"), "title: none | text: ", "task: search result | query: "),
    (re.compile(r"arctic-embed2|arctic-embed-[lm]-v2"), "", "query: "),
    (re.compile("arctic-embed"), "", _QUESTION),
)
"""By name of the model: what its authors say to put before a document, and before a question."""


def prefixes_of(model: str) -> tuple[str, str]:
    """What the model expects before a document, and before a search query."""
    for name, document, query in _PREFIXES:
        if name.search(model.lower()):
            return document, query
    return "", ""


def embedder_of(settings: Settings, state: StoreState) -> Embedder | None:
    """The embedder that the settings name; if none, the default or the small model if it is here.

    The default model has 80 MB and is not downloaded unless it is set.

    Args:
        settings: the settings.
        state: of the store; a model that is not set is only for an empty store or one with its
            vectors.

    Raises:
        EmbedderError: the provider is unknown, or something is missing.
    """
    name = settings.embedding_provider.lower()
    if name in {"", "onnx"} and not settings.embedding_model:
        for model in (DEFAULT, SMALL):
            fits = (
                same_model(model, state.identity.model_name)
                if state.identity
                else not state.has_vectors
            )
            if fits and is_installed(settings.embedding_files or folder_of(model)):
                return _on_this_machine(model, dimensions_of(model), settings)
        return None
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
    if not model or not (url or provider.local):
        raise EmbedderError(
            f"{name} needs TRIBAL_EMBEDDING_URL and TRIBAL_EMBEDDING_MODEL. Set both."
        )
    identity = EmbeddingMetadata(model, dimensions, name, datetime.now(UTC).isoformat())
    key = foreign_variable(provider.key) if provider.key else ""
    if provider.key and not key and name != "openai-compatible":
        raise EmbedderError(f"{name} needs a key. Set {provider.key} to your key.")
    if name == "default":
        return _on_this_machine(model, dimensions, settings)
    if name == "sentence-transformers":
        from tribal_mcp.embedding.sentence_transformers import SentenceTransformersEmbedder

        return SentenceTransformersEmbedder(identity, prefixes_of(model))
    more = dict(provider.more)
    if settings.embedding_dimensions and name in _CHOOSES_DIMENSIONS:
        more[_CHOOSES_DIMENSIONS[name]] = dimensions
    from tribal_mcp.embedding.http import HttpEmbedder

    return HttpEmbedder(
        identity,
        url.rstrip("/") + provider.end.format(model=model),
        provider.form,
        key,
        provider.key,
        more,
        provider.query_more,
        prefixes_of(model),
    )


def _on_this_machine(model: str, dimensions: int, settings: Settings) -> Embedder:
    """The default or the small model, or that of the files that the settings name."""
    from tribal_mcp.embedding.onnx import OnnxEmbedder

    files, is_default, is_small = (
        settings.embedding_files, same_model(model, DEFAULT), same_model(model, SMALL)
    )  # fmt: skip
    if files is None and not (is_default or is_small):
        raise EmbedderError(
            f"The provider default has the models {DEFAULT} and {SMALL}. For {model:.80}, set "
            "TRIBAL_EMBEDDING_FILES to a folder with its files."
        )
    if files is not None and is_default and has_small_weights(files):
        raise EmbedderError(
            f"The model in {files} is not {DEFAULT}, which has 90 MB: its vectors differ. Set "
            "TRIBAL_EMBEDDING_PROVIDER=default, and TRIBAL_EMBEDDING_MODEL to its name, such as "
            f"{SMALL}."
        )
    folder = files or folder_of(SMALL if is_small else DEFAULT)
    if files is None and is_small and not is_installed(folder):
        raise EmbedderError(f"The embedding model {SMALL} is not installed.", GET_SMALL)
    identity = EmbeddingMetadata(model, dimensions, "default", datetime.now(UTC).isoformat())
    return OnnxEmbedder(identity, folder, downloads=files is None and is_default)


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
        if provider and not (PROVIDERS[provider].url or PROVIDERS[provider].local):
            settings.append("TRIBAL_EMBEDDING_URL")
    if provider and (key := PROVIDERS[provider].key) and not foreign_variable(key):
        settings.append(key)
    *first, last = settings
    return f"set {', '.join(first)} and {last}" if first else f"set {last}"


def without_prefixes(embedder: Embedder) -> Embedder | None:
    """The embedder as it was before it had prefixes, and as other programs may use its model.

    None if it has no prefix for documents.
    """
    from tribal_mcp.embedding.http import HttpEmbedder
    from tribal_mcp.embedding.sentence_transformers import SentenceTransformersEmbedder

    if isinstance(embedder, HttpEmbedder | SentenceTransformersEmbedder) and embedder.prefixes[0]:
        return replace(embedder, prefixes=("", ""))
    return None


_CHOOSES_DIMENSIONS = {"openai": "dimensions", "google": "outputDimensionality"}
"""The request's field for the dimensions of the vectors, where a provider lets them be chosen."""


def is_paid(embedder: Embedder) -> bool:
    """Whether its provider charges by token."""
    provider = PROVIDERS.get(embedder.identity.provider)
    return provider is not None and provider.paid
