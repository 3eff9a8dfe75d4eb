"""Which layouts of a Chroma folder are read, and which are refused."""

import signal
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.chroma_folders import (
    add,
    change,
    chroma,
    create,
    index_of,
    read_all,
    the,
    vectors,
)
from tribal_mcp.errors import StoreDamaged, StoreLocked
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.raw import UnknownLayout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with chroma(tmp_path / "chroma") as client:
        collection = create(client, sync_threshold=5)
        add(collection, list("abcdefgh"), vectors(8), documents=list("abcdefgh"))
    return tmp_path / "chroma"


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE embedding_metadata DROP COLUMN bool_value",
        "ALTER TABLE embeddings_queue ADD COLUMN shard INTEGER",
        "ALTER TABLE embeddings RENAME COLUMN embedding_id TO record_id",
        "DROP TABLE max_seq_id",
        "DROP TABLE migrations",
        "DELETE FROM migrations WHERE dir = 'metadb' AND version = 6",
        "INSERT INTO migrations VALUES ('sysdb', 11, 'x', 'x', 'x')",
        "INSERT INTO migrations VALUES ('newdb', 1, 'x', 'x', 'x')",
    ],
)
def test_an_unknown_layout_of_the_database_is_refused(folder: Path, statement: str) -> None:
    change(folder, "DROP INDEX embedding_metadata_array_key_string", "PRAGMA foreign_keys = OFF")
    change(folder, statement)
    with pytest.raises(UnknownLayout, match="unknown layout"):
        ChromaFiles(folder)


def test_an_unknown_layout_of_the_index_is_refused(folder: Path) -> None:
    header = index_of(folder) / "header.bin"
    header.write_bytes(struct.pack("<i", 2) + header.read_bytes()[4:])
    with ChromaFiles(folder) as files, pytest.raises(StoreDamaged, match="version 2"):
        list(files.read(the(files)))


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreDamaged, match="unable to open"):
        ChromaFiles(tmp_path)
    (tmp_path / "chroma.sqlite3").write_bytes(b"not a database, but long enough to be read" * 100)
    with pytest.raises(StoreDamaged, match="not a database"):
        ChromaFiles(tmp_path)


def test_settings_and_metadata_of_collections_are_read(tmp_path: Path) -> None:
    metadata = {"text": "x", "int": 1, "float": 1.0, "bool": True, "no": False}
    with chroma(tmp_path) as client:
        collection = create(client, space="cosine")
        collection.modify(metadata=metadata)
        client.create_collection("another")
    with ChromaFiles(tmp_path) as files:
        assert [c.name for c in files.collections()] == ["another", "memories"]
        raw = the(files)
        assert repr(sorted(metadata.items())) == repr(sorted(raw.metadata.items()))
        assert (str(collection.id), "cosine", set()) == (
            raw.id,
            raw.space,
            raw.embedding_functions(),
        )
        assert {"default"} == the(files, "another").embedding_functions()


@pytest.mark.parametrize(
    ("config", "legacy", "space"),
    [
        pytest.param("{}", None, "l2", id="none"),
        pytest.param('{"vector_index": {"hnsw": {"space": "cosine"}}}', None, "cosine", id="1.0"),
        pytest.param('{"hnsw_configuration": {"space": "l2"}}', "cosine", "cosine", id="0.6"),
        pytest.param(None, "ip", "ip", id="0.4"),
        pytest.param('{"vector_index": {"hnsw": {"space": "l2"}}}', "ip", None, id="both"),
        pytest.param('{"vector_index": {"hnsw": {"space": "hamming"}}}', None, None, id="strange"),
        pytest.param('{"vector_index": 7}', None, None, id="broken"),
    ],
)
def test_the_distance_metric_of_older_collections_is_read_or_refused(
    tmp_path: Path, config: str | None, legacy: str | None, space: str | None
) -> None:
    with chroma(tmp_path) as client:
        add(create(client, space="cosine", sync_threshold=2), ["a", "b"], vectors(2))
    sql = sqlite3.connect(tmp_path / "chroma.sqlite3", isolation_level=None)
    sql.execute("UPDATE collections SET schema_str = NULL, config_json_str = ?", (config,))
    sql.execute(
        "INSERT INTO segment_metadata (segment_id, key, str_value) "
        "SELECT id, 'hnsw:space', ? FROM segments WHERE scope = 'VECTOR'",
        (legacy,),
    )
    sql.close()
    with ChromaFiles(tmp_path) as files:
        if space:
            assert space == the(files).space
        else:
            with pytest.raises(UnknownLayout):
                list(files.read(the(files)))


def test_a_transaction_of_a_killed_writer_is_rolled_back(folder: Path) -> None:
    before = read_all(folder)
    code = (
        "import os, sqlite3, sys\n"
        "sql = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "sql.execute('PRAGMA cache_size = 5')\n"
        "sql.execute('BEGIN IMMEDIATE')\n"
        "sql.execute('UPDATE embedding_metadata SET string_value = zeroblob(4000)')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(folder / "chroma.sqlite3")], check=False
    )
    assert (
        killed.returncode, (folder / "chroma.sqlite3-journal").exists(),
    ) == (-signal.SIGKILL, True)  # fmt: skip
    assert before == read_all(folder)


def test_the_wait_for_another_writer_has_a_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tribal_mcp.stores.chroma.files.tables._BUSY_S", 0.01)
    other = sqlite3.connect(folder / "chroma.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreLocked, match="Another program"):
        ChromaFiles(folder)
    other.execute("ROLLBACK")
    other.close()
    assert len(read_all(folder)) == 8
