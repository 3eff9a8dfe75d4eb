"""Chroma collections of other programs: what a naive reader gets wrong."""

import hashlib
import json
from pathlib import Path
from typing import Any

import chromadb
import pytest
from chromadb.config import Settings

from tests.interchange.samples import read_sample, source_at, source_of
from tests.support.old_chroma import VERSIONS, digests, unpack
from tribal_mcp.errors import BundleError
from tribal_mcp.interchange.conventions import CLOSET, EMPTY
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.chroma.store import ChromaStore

_VECTORS = [[0.5, 0.25, 1.0], [0.125, 1.0, 0.0], [1.0, 0.0, 0.5]]


def _columns(metadatas: list[Any], documents: list[Any] | None = None, **more: Any) -> bytes:  # noqa: ANN401
    ids = [f"id{n}" for n in range(len(metadatas))]
    documents = documents or ["text"] * len(ids)
    return json.dumps(
        {"ids": ids, "documents": documents, "metadatas": metadatas, "embeddings": None, **more}
    ).encode()


def _only(metadata: Any, document: Any = "text", collection: str = "c") -> MemoryEntry:  # noqa: ANN401
    data = _columns([metadata], [document], collection={"name": collection})
    return read_sample(source_of(data))[1][0]


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with collections of mem0 and MemPalace, an empty one, and a deleted record."""
    path = tmp_path_factory.mktemp("chroma")
    client = chromadb.PersistentClient(str(path), Settings(anonymized_telemetry=False))
    mem0 = client.create_collection("mem0", embedding_function=None)
    mem0.add(
        ids=["a", "b", "gone"],
        embeddings=_VECTORS,  # type: ignore[arg-type]
        metadatas=[
            {"data": "one", "user_id": "alice", "created_at": "2026-01-15T10:30:00+02:00"},
            {"data": "two", "agent_id": "bot", "text_lemmatized": "two"},
            {"data": "a secret"},
        ],
    )
    mem0.delete(ids=["gone"])
    client.create_collection("empty", embedding_function=None)
    for name, text in (("mempalace_closets", "closet"), ("mempalace_drawers", "drawer")):
        client.create_collection(name, embedding_function=None).add(
            ids=["a"],
            documents=[text],
            embeddings=_VECTORS[:1],  # type: ignore[arg-type]
            metadatas=[{"wing": "w", "room": "r", "filed_at": "2026-09-01T12:00:00.5"}],
        )
    return path


def test_a_folder_is_read_without_a_change_to_it(folder: Path) -> None:
    before = _hashes(folder)
    conversion, entries, _ = read_sample(source_at(folder))
    assert _hashes(folder) == before
    assert conversion.format.name == "chroma"
    assert [e.content for e in entries] == ["one", "two", "drawer"]
    assert conversion.left_out == {CLOSET: 1}


def test_memories_of_mem0_have_their_text_owner_dates_and_vectors(folder: Path) -> None:
    one, two, _ = read_sample(source_at(folder))[1]
    assert [one.source_instance, two.source_instance] == ["mem0:alice", "mem0:bot"]
    assert one.created_at.isoformat() == "2026-01-15T10:30:00+02:00"
    assert two.extra["created_at_unknown"] is True
    assert two.metadata == {"agent_id": "bot"}
    assert one.embedding is not None
    assert one.embedding.tolist() == _VECTORS[0]


def test_the_same_id_in_two_collections_is_two_memories(folder: Path) -> None:
    entries = read_sample(source_at(folder))[1]
    assert entries[0].id == "a"
    assert entries[2].content == "drawer"
    assert entries[2].id not in ("a", "b")


def test_the_database_alone_is_read_too(folder: Path) -> None:
    entries = read_sample(source_at(folder / "chroma.sqlite3"))[1]
    assert [e.content for e in entries] == ["one", "two", "drawer"]


def test_a_record_without_text_is_left_out() -> None:
    conversion, entries, _ = read_sample(source_of(_columns([None, {}, {}], ["", None, "x"])))
    assert conversion.left_out == {EMPTY: 2}
    assert len(entries) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-05-17T10:00:00+02:00", "2026-05-17T10:00:00+02:00"),
        (1788220800, "2026-09-01T00:00:00+00:00"),
        (1788220800000, "2026-09-01T00:00:00+00:00"),
    ],
    ids=["ISO", "seconds", "milliseconds"],
)
def test_a_date_of_the_users_own_is_read(value: Any, expected: str) -> None:  # noqa: ANN401
    entry = _only({"created_at": value})
    assert entry.created_at.isoformat() == expected
    assert entry.metadata == {}


@pytest.mark.parametrize(
    "value", ["17 May 2026", 3, True, ["x"]], ids=["text", "3", "true", "list"]
)
def test_a_date_that_is_none_stays_metadata(value: Any) -> None:  # noqa: ANN401
    entry = _only({"created_at": value})
    assert entry.extra["created_at_unknown"] is True
    assert entry.metadata == {"created_at": value}


def test_a_node_of_llama_index_links_its_neighbors() -> None:
    nodes = [
        {
            "_node_content": json.dumps(
                {
                    "text": "",
                    "metadata": {"topic": "t"},
                    "relationships": {
                        "1": {"node_id": "document"},
                        "2": {"node_id": "elsewhere"},
                        "3": {"node_id": "id1"},
                    },
                }
            ),
            "ref_doc_id": "None",
            "topic": "t",
        },
        {"_node_content": "{broken"},
    ]
    first, second = read_sample(source_of(_columns(nodes, ["one", "two"])))[1]
    assert first.related_to == ["id1"]
    assert first.metadata["topic"] == "t"
    assert "ref_doc_id" not in first.metadata
    assert second.content == "two"


def test_the_text_of_a_node_may_be_in_the_node() -> None:
    node = {"_node_content": json.dumps({"text": "inside"})}
    assert _only(node, None).content == "inside"


def test_a_drawer_of_mempalace_without_a_source_file_is_read() -> None:
    entry = _only({"wing": "w", "room": "r", "source_file": ""}, collection="mempalace_drawers")
    assert (entry.source_instance, entry.tags) == ("mempalace:w", ["r"])


@pytest.mark.parametrize(
    ("configuration", "metadata", "expected"),
    [
        ({"embedding_function": {"name": "default", "config": {}}}, None, None),
        ({"embedding_function": {"name": "openai", "config": {"model_name": "m"}}}, None, "m"),
        (None, {"embedding_model": "m"}, "m"),
        (None, None, None),
    ],
    ids=["default", "function", "metadata", "none"],
)
def test_the_model_is_known_only_if_the_collection_names_it(
    configuration: object, metadata: object, expected: str | None
) -> None:
    collection = {"name": "c", "metadata": metadata, "configuration": configuration}
    source = source_of(_columns([{}], collection=collection, embeddings=[[1, 2]]))
    conversion, entries, _ = read_sample(source)
    model = conversion.format.model(source)
    assert (model.model_name if model else None) == expected
    assert entries[0].embedding is not None


def test_columns_of_different_lengths_are_refused() -> None:
    data = _columns([{}, {}], ["only one", "two"], embeddings=[[1, 2]])
    with pytest.raises(BundleError, match="different lengths"):
        read_sample(source_of(data))


@pytest.mark.parametrize(
    "row",
    [{"ids": [7]}, {"documents": [7]}, {"metadatas": [[1]]}, {"metadatas": [{"x": {"y": None}}]}],
    ids=["id", "document", "metadata", "nested"],
)
def test_a_bad_record_never_ends_in_a_traceback(row: dict[str, Any]) -> None:
    columns = {"ids": ["a"], "documents": ["x"], "metadatas": [{}], "included": [], **row}
    conversion, entries, _ = read_sample(source_of(json.dumps(columns).encode()))
    assert conversion.found == 1
    assert len(entries) + conversion.rejected_count == 1


@pytest.mark.anyio
async def test_a_store_of_this_program_is_read_exactly(tmp_path: Path) -> None:
    entries = [
        MemoryEntry(id="a", content="one", tags=["x"], embedding=_VECTORS[0]),  # type: ignore[arg-type]
        MemoryEntry(id="b", content="two", metadata={"deleted_at_us": 1}),
        MemoryEntry(id="c", content="three"),
    ]
    async with ChromaStore(tmp_path / "store") as store:
        await store.set_identity(create_embedding_metadata("m", 3))
        await store.upsert(entries)
        await store.delete(["c"])
    source = source_at(tmp_path / "store")
    conversion, found, _ = read_sample(source)
    for entry in found:
        entry.extra.pop("imported_from")
    assert sorted(found, key=lambda entry: entry.id) == entries[:2]
    assert conversion.deleted == 1
    model = conversion.format.model(source)
    assert model is not None
    assert model.model_name == "m"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_folder_of_an_older_chroma_is_read_without_a_change_to_it(
    tmp_path: Path, version: str
) -> None:
    folder, expected = unpack(version, tmp_path)
    before = digests(folder)
    entries = read_sample(source_at(folder))[1]
    assert digests(folder) == before
    found = {(e.source_instance, e.content): (e.metadata, e.embedding) for e in entries}
    for name, records in expected.items():
        for _, text, metadata, numbers in records:
            kept, vector = found.pop((f"chroma:{name}", text))
            assert kept == metadata
            assert vector is not None
            assert vector.tolist() == pytest.approx(numbers, rel=1e-5)
    assert not found
