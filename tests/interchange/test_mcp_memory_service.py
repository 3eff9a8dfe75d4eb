"""mcp-memory-service's databases and exports: what a naive reader gets wrong."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.interchange.samples import SAMPLES, read_sample, source_at, source_of
from tribal_mcp.files.origins import FileOrigin
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.limits import DEFAULT_LIMITS

_SAMPLE = SAMPLES / "mcp-memory-service.sqlite_vec.db"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "sqlite_vec.db"
    path.write_bytes(_SAMPLE.read_bytes())
    return path


def _run(path: Path, script: str, *values: Any) -> None:  # noqa: ANN401 - SQL values
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(script, values)


def _record(identity: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
    return {"content_hash": identity, "content": f"text of {identity}", "tags": [], **fields}


def _export(*records: Any) -> Source:  # noqa: ANN401 - JSON values
    return source_of(json.dumps({"export_metadata": {}, "memories": records}).encode())


def test_a_newer_version_supersedes_the_older_row(database: Path) -> None:
    _run(database, "UPDATE memories SET superseded_by = 'newer' WHERE id = 1")
    _run(database, "INSERT INTO memories (content_hash, content) VALUES ('newer', 'new')")
    entries = read_sample(source_at(database))[1]
    assert entries[-1].supersedes == entries[0].id
    assert "superseded_by" not in entries[0].metadata


def test_a_version_that_its_importer_left_in_the_metadata_supersedes(database: Path) -> None:
    _run(database, "UPDATE memories SET metadata = ? WHERE id = 1", '{"superseded_by": "newer"}')
    _run(database, "INSERT INTO memories (content_hash, content) VALUES ('newer', 'new')")
    entries = read_sample(source_at(database))[1]
    assert entries[-1].supersedes == entries[0].id
    assert "superseded_by" not in entries[0].metadata


def test_the_tag_that_its_importer_adds_to_an_export_of_ours_is_left_out() -> None:
    block = {"fields": {"id": "ours"}}
    record = _record("a", tags=["untagged"], metadata={"x_tribal": block})
    (entry,) = read_sample(_export(record))[1]
    assert (entry.id, entry.tags) == ("ours", [])


def test_a_version_in_an_export_supersedes_the_older_record() -> None:
    old, new = read_sample(_export(_record("a", metadata={"superseded_by": "b"}), _record("b")))[1]
    assert new.supersedes == old.id
    assert old.metadata == {}


def test_a_newer_version_that_is_not_there_stays_in_the_metadata() -> None:
    (old,) = read_sample(_export(_record("a", metadata={"superseded_by": "gone"})))[1]
    assert old.metadata == {"superseded_by": "gone"}


def test_the_columns_of_8_x_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    _run(
        path,
        "CREATE TABLE memories (id INTEGER PRIMARY KEY, content_hash TEXT, content TEXT, tags TEXT,"
        " memory_type TEXT, metadata TEXT, created_at REAL, updated_at REAL, created_at_iso TEXT,"
        " updated_at_iso TEXT)",
    )
    _run(path, "INSERT INTO memories (content_hash, content, tags) VALUES ('h', 'text', 'a,b')")
    (entry,) = read_sample(source_at(path))[1]
    assert (entry.id, entry.content, entry.tags) == ("h", "text", ["a", "b"])
    assert entry.extra["created_at_unknown"] is True


def test_what_a_running_program_has_only_in_its_wal_file_is_read(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE memories SET deleted_at = 1788400000 WHERE id = 1")
        connection.commit()
        wal = database.with_name("sqlite_vec.db-wal")
        before = database.read_bytes(), wal.read_bytes()
        with database.open("rb") as file, wal.open("rb") as log:
            source = Source(FileOrigin("sqlite_vec.db", file, DEFAULT_LIMITS, log))
            conversion, entries, _ = read_sample(source)
        assert (database.read_bytes(), wal.read_bytes()) == before
    assert (len(entries), conversion.deleted) == (1, 2)


def _add_vectors(path: Path, vectors: dict[int, list[float]]) -> None:
    """The shadow tables of a `vec0` table with one chunk of 4 places, filled from the end."""
    _run(
        path,
        "CREATE TABLE memory_embeddings_chunks"
        "(chunk_id INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL, partition00,"
        " validity BLOB NOT NULL, rowids BLOB NOT NULL)",
    )
    _run(
        path,
        "CREATE TABLE memory_embeddings_rowids"
        "(rowid INTEGER PRIMARY KEY AUTOINCREMENT, id, chunk_id INTEGER, chunk_offset INTEGER)",
    )
    _run(
        path,
        "CREATE TABLE memory_embeddings_vector_chunks00(rowid PRIMARY KEY, vectors BLOB NOT NULL)",
    )
    chunk = np.zeros((4, 3), dtype="<f4")
    for offset, (rowid, numbers) in enumerate(vectors.items(), 1):
        chunk[offset] = numbers
        _run(path, "INSERT INTO memory_embeddings_rowids VALUES (?, NULL, 1, ?)", rowid, offset)
    _run(path, "INSERT INTO memory_embeddings_chunks VALUES (1, 4, 'default', x'00', x'00')")
    _run(path, "INSERT INTO memory_embeddings_vector_chunks00 VALUES (1, ?)", chunk.tobytes())


def test_vectors_are_read_from_the_tables_of_sqlite_vec(database: Path) -> None:
    _add_vectors(database, {2: [1, 2, 3], 1: [4, 5, 6]})
    first, second = read_sample(source_at(database))[1]
    assert first.embedding is not None
    assert first.embedding.tolist() == [4, 5, 6]
    assert second.embedding is not None
    assert second.embedding.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("models", "expected"),
    [(["m"], "m"), (["m", "n"], None), (["__hash_fallback__::3"], None), ([], None)],
    ids=["one", "two", "fallback", "none"],
)
def test_the_model_is_the_one_that_all_events_name(
    database: Path, models: list[str], expected: str | None
) -> None:
    _run(database, "CREATE TABLE sync_events (embedding_model TEXT, embedding_dim INTEGER)")
    for name in models:
        _run(database, "INSERT INTO sync_events VALUES (?, 3)", name)
    source = source_at(database)
    found = read_sample(source)[0].format.model(source)
    assert (found.model_name if found else None) == expected


def test_an_export_with_vectors_keeps_them() -> None:
    source = _export(_record("a", embedding=[1, 2]), _record("b", embedding=[1, 2, 3]))
    a, b = read_sample(source)[1]
    assert a.embedding is not None
    assert b.embedding is None
    assert source.notes == [
        "1 vector with invalid numbers or of another length than 2 left out; the memories are read."
    ]


def test_the_store_of_a_memory_is_its_instance() -> None:
    a, b = read_sample(_export(_record("a", store="default"), _record("b", store="work")))[1]
    assert [a.source_instance, b.source_instance] == [
        "mcp-memory-service",
        "mcp-memory-service:work",
    ]


@pytest.mark.parametrize(
    "record",
    [
        7,
        _record("a", content=None),
        _record("a", content_hash=[1]),
        _record("a", tags={"x": 1}),
        _record("a", metadata=[1]),
        _record("a", metadata="{"),
        _record("a", created_at=1e300),
        _record("a", confidence=2),
    ],
    ids=["number", "content", "id", "tags", "list", "text", "date", "confidence"],
)
def test_a_bad_record_is_rejected_with_its_place(record: object) -> None:
    source = _export(_record("good"), record)
    conversion, entries, _ = read_sample(source, format_name="mcp-memory-service")
    assert len(entries) == 1
    assert [r.where for r in conversion.rejected] == ["memories, item 2"]


def test_the_folder_of_a_running_program_is_read_with_its_wal_file(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE memories SET deleted_at = 1788400000 WHERE id = 1")
        connection.commit()
        conversion, entries, _ = read_sample(source_at(database.parent))
    assert (len(entries), conversion.deleted) == (1, 2)
