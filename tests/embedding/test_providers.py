"""Embedding providers: only the settings choose one, and its answers are checked."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.embedding_server import EmbeddingServer, embedding_server, words_vector
from tests.support.examples import memory
from tribal_mcp.config import Settings, load
from tribal_mcp.embedding import providers
from tribal_mcp.embedding.base import BATCH
from tribal_mcp.embedding.http import HttpEmbedder
from tribal_mcp.embedding.providers import PROVIDERS, embedder_of, settings_for
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.known_models import dimensions_of
from tribal_mcp.portability.manifest import (
    EmbeddingManifest,
    EmbeddingMetadata,
    create_embedding_metadata,
)
from tribal_mcp.portability.vectors import as_vector
from tribal_mcp.services.import_export import import_memories
from tribal_mcp.stores.base import StoreState
from tribal_mcp.stores.in_memory import InMemoryStore

pytestmark = pytest.mark.anyio

EMPTY = StoreState()


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as server:
        yield server


class Waits(list[float]):
    """Records how long it would have waited."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def asking(server: EmbeddingServer, waits: Waits, **changes: Any) -> HttpEmbedder:  # noqa: ANN401
    identity = create_embedding_metadata("words-8", 8, "openai-compatible")
    return replace(
        HttpEmbedder(identity, f"{server.url}/embeddings", key="a key", sleep=waits), **changes
    )


def set_to(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load()[0]


@pytest.mark.parametrize("provider", ["openai-compatible", "ollama", "openai", "mistral"])
async def test_each_text_gets_its_vector_in_order(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    url = server.url.removesuffix("/v1") if provider == "ollama" else server.url
    settings = set_to(
        monkeypatch,
        **server.settings() | {"TRIBAL_EMBEDDING_PROVIDER": provider, "TRIBAL_EMBEDDING_URL": url},
        OPENAI_API_KEY="a key",
        MISTRAL_API_KEY="a key",
    )
    embedder = embedder_of(settings, EMPTY)
    assert embedder is not None
    texts = [f"text {n}" for n in range(2 * BATCH + 3)]
    vectors = await embedder.embed(texts)
    for text, vector in zip(texts, vectors, strict=True):
        assert vector.tobytes() == np.array(words_vector(text, 8), np.float32).tobytes()
        assert not vector.flags.writeable
    assert (embedder.identity.model_name, embedder.identity.dimensions) == ("words-8", 8)
    assert max(len(asked["input"]) for asked in server.requests) == BATCH
    assert server.keys[0] == ("" if provider == "ollama" else "Bearer a key")
    assert await embedder.embed([]) == []


async def test_transient_failures_are_retried_after_the_time_the_server_asks_for(
    server: EmbeddingServer,
) -> None:
    server.fails = [500, 429, 503]
    waits = Waits()
    assert len(await asking(server, waits).embed(["tea"])) == 1
    assert waits == [0.5, 7.0, 2.0]


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        ([429] * 9, "has reached its rate limit"),
        ([401], "Check the key in OPENAI_API_KEY"),
        ([404], "does not have the model 'words-8'"),
        ([400], "refused the request"),
    ],
    ids=["busy", "the key", "the model", "a bad request"],
)
async def test_a_refusal_is_an_error_message_without_the_key(
    server: EmbeddingServer, fails: list[int], says: str
) -> None:
    server.fails = fails
    with pytest.raises(EmbedderError, match=says) as caught:
        await asking(server, Waits(), key_variable="OPENAI_API_KEY").embed(["tea"])
    assert "a key" not in str(caught.value)


async def test_a_server_that_cant_be_reached_is_an_error_message() -> None:
    with embedding_server() as gone:
        embedder = asking(gone, waits := Waits())
    with pytest.raises(EmbedderError, match="can't be reached"):
        await embedder.embed(["tea"])
    assert len(waits) == 5


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ("few", "returned 1 vector for 2 texts"),
        ("short", "with 7 dimensions instead of 8. Set TRIBAL_EMBEDDING_DIMENSIONS to 7."),
        ("nan", "returned an invalid vector"),
        ("json", "but not with embeddings"),
    ],
)
async def test_an_invalid_answer_is_refused(server: EmbeddingServer, lie: str, says: str) -> None:
    server.lie = lie
    with pytest.raises(EmbedderError, match=says):
        await asking(server, Waits()).embed(["tea", "coffee"])


def test_there_is_no_embedder_without_settings_and_the_default_model() -> None:
    assert embedder_of(load()[0], EMPTY) is None


async def test_a_downloaded_default_model_is_used_for_stores_with_its_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(providers, "is_installed", lambda _folder: True)
    settings = load()[0]
    own = create_embedding_metadata("sentence-transformers/all-MiniLM-L6-v2", 384, "any")
    for state, fits in (
        (EMPTY, True),
        (StoreState(identity=own, dimensions=384, count=1), True),
        (StoreState(dimensions=384, count=1), False),
        (StoreState(identity=create_embedding_metadata("other", 384), count=1), False),
    ):
        assert (embedder_of(settings, state) is not None) is fits


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_each_provider_is_created_or_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    provider = PROVIDERS[name]
    settings = set_to(monkeypatch, TRIBAL_EMBEDDING_PROVIDER=name)
    if provider.key:
        monkeypatch.delenv(provider.key, raising=False)
        missing = provider.key if provider.model else "Set both"
        with pytest.raises(EmbedderError, match=missing):
            embedder_of(settings, EMPTY)
        monkeypatch.setenv(provider.key, "a key")
    if name == "openai-compatible":
        settings = set_to(
            monkeypatch,
            TRIBAL_EMBEDDING_URL="http://127.0.0.1:1",
            TRIBAL_EMBEDDING_MODEL="m",
            TRIBAL_EMBEDDING_DIMENSIONS="4",
        )
    embedder = embedder_of(settings, EMPTY)
    assert embedder is not None
    assert embedder.identity.provider == name
    assert embedder.identity.dimensions
    assert "a key" not in repr(embedder)


def test_an_unknown_provider_is_refused_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = set_to(monkeypatch, TRIBAL_EMBEDDING_PROVIDER="evil")
    with pytest.raises(EmbedderError, match=r"'evil', which is not a provider.*one of default, "):
        embedder_of(settings, EMPTY)


async def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = set_to(monkeypatch, TRIBAL_EMBEDDING_PROVIDER="sentence-transformers")
    embedder = embedder_of(settings, EMPTY)
    assert embedder is not None
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        EmbedderError, match=r"the package sentence-transformers is not installed\."
    ):
        await embedder.embed(["tea"])


@pytest.mark.parametrize("prompts", [{}, {"query": "query: "}], ids=["none", "of the model"])
async def test_sentence_transformers_embeds_questions_as_the_model_says(
    monkeypatch: pytest.MonkeyPatch, prompts: dict[str, str]
) -> None:
    asked: list[tuple[str, list[str]]] = []

    class Model:
        def __init__(self, _name: str) -> None:
            self.prompts = prompts

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - encode and its variants
            def encode(texts: list[str]) -> np.ndarray[Any, Any]:
                asked.append((name, texts))
                return np.ones((len(texts), 384), np.float32)

            return encode

    stub = ModuleType("sentence_transformers")
    stub.SentenceTransformer = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", stub)
    settings = set_to(
        monkeypatch,
        TRIBAL_EMBEDDING_PROVIDER="sentence-transformers",
        TRIBAL_EMBEDDING_MODEL="intfloat/multilingual-e5-small",
        TRIBAL_EMBEDDING_DIMENSIONS="384",
    )
    embedder = embedder_of(settings, EMPTY)
    assert embedder is not None
    await embedder.embed(["tea"])
    await embedder.embed(["tea?"], query=True)
    assert asked == (
        [("encode_document", ["tea"]), ("encode_query", ["tea?"])]
        if prompts
        else [("encode", ["passage: tea"]), ("encode", ["query: tea?"])]
    )


QUESTIONS = {
    "cohere": ("input_type", "search_document", "search_query"),
    "google": ("taskType", "RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY"),
    "jina": ("task", "retrieval.passage", "retrieval.query"),
    "voyageai": ("input_type", "document", "query"),
}


@pytest.mark.parametrize("name", QUESTIONS)
async def test_questions_are_embedded_as_questions_where_the_provider_distinguishes_them(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings = set_to(
        monkeypatch,
        **server.settings() | {"TRIBAL_EMBEDDING_PROVIDER": name},
        **{PROVIDERS[name].key: "a key"},
    )
    embedder = embedder_of(settings, EMPTY)
    assert embedder is not None
    texts = [f"text {n}" for n in range(BATCH + 3)]
    vectors = await embedder.embed(texts)
    assert [v.tobytes() for v in vectors] == [
        np.array(words_vector(text, 8), np.float32).tobytes() for text in texts
    ]
    await embedder.embed(["tea?"], query=True)
    field, document, query = QUESTIONS[name]
    said = [asked["requests"][0] if name == "google" else asked for asked in server.requests]
    assert [asked[field] for asked in said] == [document, document, query]


@pytest.mark.parametrize(
    ("model", "document", "query"),
    [
        ("intfloat/multilingual-e5-large", "passage: tea", "query: tea"),
        ("nomic-embed-text", "search_document: tea", "search_query: tea"),
        ("embeddinggemma:300m", "title: none | text: tea", "task: search result | query: tea"),
        ("snowflake-arctic-embed2", "tea", "query: tea"),
        ("BAAI/bge-m3", "tea", "tea"),
        ("all-MiniLM-L6-v2", "tea", "tea"),
    ],
)
async def test_a_model_gets_the_prefixes_that_its_authors_ask_for(
    server: EmbeddingServer, model: str, document: str, query: str
) -> None:
    identity = create_embedding_metadata("words-8", 8, "ollama")
    embedder = HttpEmbedder(
        identity, f"{server.url}/embeddings", prefixes=providers.prefixes_of(model)
    )
    await embedder.embed(["tea"])
    await embedder.embed(["tea"], query=True)
    assert [asked["input"] for asked in server.requests] == [[document], [query]]


@pytest.mark.parametrize("prefix", ["", "search_document: ", "another model: "])
async def test_a_bundle_whose_texts_were_embedded_without_the_prefix_is_from_the_same_model(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    changes = {"TRIBAL_EMBEDDING_MODEL": "nomic-embed-text-8"}
    embedder = embedder_of(set_to(monkeypatch, **server.settings() | changes), EMPTY)
    assert embedder is not None
    entries = [
        memory(n, content=text, embedding=as_vector(words_vector(prefix + text, 8)))
        for n, text in enumerate(("tea", "coffee", "water"))
    ]
    bundle = PortableBundle(EmbeddingManifest(embedder.identity), entries)
    summary = await import_memories(bundle, InMemoryStore(), embedder=embedder)
    assert summary.vectors_kept == (0 if "another" in prefix else 3)


async def test_models_of_hugging_face_are_asked_by_name(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = set_to(
        monkeypatch,
        **server.settings() | {"TRIBAL_EMBEDDING_PROVIDER": "huggingface"},
        HF_TOKEN="a key",  # noqa: S106 - not a real one
    )
    embedder = embedder_of(settings, EMPTY)
    assert embedder is not None
    [vector] = await embedder.embed(["tea"])
    assert vector.tobytes() == np.array(words_vector("tea", 8), np.float32).tobytes()
    assert server.requests == [{"inputs": ["tea"]}]


def test_every_provider_and_extra_is_documented() -> None:
    import tomllib  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    packages = {line.partition(">=")[0] for lines in extras.values() for line in lines}
    assert packages >= {p.package for p in PROVIDERS.values() if p.package}
    page = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text()
    for name, provider in PROVIDERS.items():
        assert f"`{name}`" in page
        for word in (provider.key, provider.model):
            assert not word or f"`{word}`" in page, json.dumps(word)


@pytest.mark.parametrize(
    "model",
    [
        EmbeddingMetadata("all-MiniLM-L6-v2", 384, "onnx"),
        EmbeddingMetadata("text-embedding-3-small", 1536, "unknown"),
        EmbeddingMetadata("text-embedding-3-large", 3072, "openai"),
        EmbeddingMetadata("sentence-transformers/all-MiniLM-L6-v2", 384, "made up"),
        EmbeddingMetadata("text-embedding-3-large", 256, "openai"),
        EmbeddingMetadata("a-model-of-mine", 77, "ollama"),
        EmbeddingMetadata("BAAI/bge-m3", 1024, "openai-compatible"),
    ],
    ids=str,
)
def test_the_settings_that_a_note_names_make_the_stored_model_available(
    model: EmbeddingMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = settings_for(model)
    assert said.startswith("set TRIBAL_EMBEDDING_PROVIDER=")
    for word in re.split(r"[ ,]+", said.removeprefix("set ").replace(" and ", " ")):
        name, _, value = word.partition("=")
        monkeypatch.setenv(name, value or "http://localhost:8080/v1")
    embedder = embedder_of(load()[0], StoreState(model, model.dimensions, 1))
    assert embedder is not None
    assert embedder.identity.is_compatible_with(model)


def test_a_model_of_an_unknown_provider_is_named_without_guessing_it() -> None:
    said = settings_for(EmbeddingMetadata("a-model-of-mine", 77, "made up"))
    assert said == (
        "set TRIBAL_EMBEDDING_PROVIDER, TRIBAL_EMBEDDING_MODEL=a-model-of-mine and "
        "TRIBAL_EMBEDDING_DIMENSIONS=77"
    )


def test_the_dimensions_of_known_models_need_not_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBAL_EMBEDDING_MODEL", "text-embedding-3-large")
    assert load()[0].dimensions == 3072
    monkeypatch.setenv("TRIBAL_EMBEDDING_DIMENSIONS", "256")
    assert load()[0].dimensions == 256
    for provider in PROVIDERS.values():
        assert not provider.model or dimensions_of(provider.model)
