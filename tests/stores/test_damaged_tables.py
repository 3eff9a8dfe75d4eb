"""Damaged tables of Chroma's database: found, repaired or rescued, and nothing is guessed."""

import json
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import numpy as np
import pytest

from tests.support.chroma_folders import change, chroma, create, vectors
from tests.support.command_line import Tribal
from tests.support.examples import memories, memory
from tribal_mcp import open_store
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.stores.chroma.full_text import create_full_text, has_full_text
from tribal_mcp.stores.chroma.lock import FolderLock
from tribal_mcp.stores.chroma.store import ChromaStore

COUNT = 400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """399 memories and a tombstone, in tables of several pages."""

    async def fill() -> None:
        async with open_store(tmp_path / "store") as store:
            await store.set_identity(create_embedding_metadata("all-MiniLM-L6-v2", 8))
            await store.upsert(memories(COUNT))
            await store.delete(["memory-5"])

    anyio.run(fill)
    return tmp_path / "store"


def overwrite_root(folder: Path, *names: str) -> None:
    """Overwrite the page at which SQLite begins to read a table or an index."""
    database = folder / "chroma.sqlite3"
    with sqlite3.connect(database) as sql:
        roots = dict(sql.execute("SELECT name, rootpage FROM sqlite_master"))
    sql.close()
    with database.open("r+b") as file:
        for name in names:
            file.seek((roots[name] - 1) * 4096)
            file.write(os.urandom(4096))


def rescued(tribal: Tribal, tmp_path: Path) -> dict[str, bytes | None]:
    """The vectors of the rescued memories by id, after their texts were compared."""
    ran = tribal("rescue", "out.json", "--overwrite")
    assert ran.code == 0, ran
    entries = json.loads((tmp_path / "out.json").read_text())["entries"]
    for entry in entries:
        expected = memory(int(entry["id"].removeprefix("memory-")))
        assert (entry["content"], entry["tags"]) == (expected.content, expected.tags)
    return {
        e["id"]: np.asarray(e["embedding"], np.float32).tobytes() if e["embedding"] else None
        for e in entries
    }


@pytest.mark.parametrize(
    "table",
    [
        *("embeddings", "embedding_metadata", "embedding_metadata_array", "embeddings_queue"),
        *("segments", "collection_metadata", "max_seq_id", "databases"),
    ],
)
def test_rescue_reads_the_rows_that_sqlite_cannot_reach(
    folder: Path, tribal: Tribal, tmp_path: Path, table: str
) -> None:
    overwrite_root(folder, table)
    found = rescued(tribal, tmp_path)
    assert found.keys() == {e.id for e in memories(COUNT)} - {"memory-5"}
    for memory_id, vector in found.items():
        stored = memory(int(memory_id.removeprefix("memory-"))).embedding
        assert stored is not None
        assert vector == stored.tobytes()


@pytest.mark.parametrize("size", [16, 100])
def test_a_damaged_header_leads_to_a_rescue_that_has_everything(
    folder: Path, tribal: Tribal, tmp_path: Path, size: int
) -> None:
    with (folder / "chroma.sqlite3").open("r+b") as file:
        file.write(os.urandom(size))
    for words in (("check",), ("check", "--repair"), ("export", "x.json"), ("recall", "number")):
        ran = tribal(*words)
        assert (ran.code, "tribal-mcp rescue" in ran.out + ran.err) == (5, True), ran
    assert len([v for v in rescued(tribal, tmp_path).values() if v]) == COUNT - 1


_TYPES = {
    "marks as bytes": "UPDATE max_seq_id SET seq_id = x'0000000000000191'",
    "marks as text": "UPDATE max_seq_id SET seq_id = CAST(seq_id AS TEXT)",
    "marks as words": "UPDATE max_seq_id SET seq_id = 'abc'",
    "a text as bytes": "UPDATE embedding_metadata SET string_value = CAST(string_value AS BLOB) "
    "WHERE key = 'chroma:document' AND id % 3 = 0",
    "an id as bytes": "UPDATE embeddings SET embedding_id = CAST(embedding_id AS BLOB) "
    "WHERE id = 3",
    "a date as text": "UPDATE embedding_metadata SET int_value = CAST(int_value AS TEXT) || 'x' "
    "WHERE key = 'created_at_us' AND id = 3",
    "a schema cut off": "UPDATE collections SET schema_str = '{'",
    "a schema nested deeply": "UPDATE collections SET schema_str = replace(hex(zeroblob(10000)), "
    "'00', '[')",
}


@pytest.mark.parametrize("statement", _TYPES.values(), ids=_TYPES)
def test_values_of_other_types_are_read_or_reported(
    folder: Path, tribal: Tribal, tmp_path: Path, statement: str
) -> None:
    change(folder, statement)
    for words in (("stats",), ("check",), ("export", "x.json"), ("recall", "number")):
        assert tribal(*words).code in (0, 5)
    assert tribal("rescue", "out.json").code == 0
    entries = json.loads((tmp_path / "out.json").read_text())["entries"]
    assert {e["id"] for e in entries} == {e.id for e in memories(COUNT)} - {"memory-5"}
    assert all(e["content"] == f"Memory number {e['id'][7:]}" and e["embedding"] for e in entries)
    if tribal("check").code and tribal("check", "--repair").code == 0:
        assert tribal("check").code == 0
        assert tribal("remember", "A new memory.").code == 0


def test_what_chroma_leaves_of_a_deleted_collection_is_no_damage(
    folder: Path, tribal: Tribal
) -> None:
    with chroma(folder) as client:
        create(client, "another", sync_threshold=2).add(
            ids=["a", "b", "c"], embeddings=vectors(3), documents=["x", "y", "z"]
        )
    with chroma(folder) as client:
        client.delete_collection("another")
    assert len(list(folder.glob("*/header.bin"))) == 3
    found = tribal("check")
    said = " ".join(found.out.split())
    assert found.code == 0
    assert re.search(r"1 index directory belongs to no collection \(\d+ KiB\)", said)
    assert tribal("check", "--repair").code == 0
    assert len(list(folder.glob("*/header.bin"))) == 2


def test_rescue_names_the_collections_if_their_names_are_lost(
    folder: Path, tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwrite_root(folder, "collections")
    ran = tribal("rescue", "out.json")
    assert ran.code == 5
    assert not (tmp_path / "out.json").exists()
    [name] = re.findall(r"'([^']+)' \(399 memories\)", ran.err)
    monkeypatch.setenv("TRIBAL_COLLECTION", name)
    assert len(rescued(tribal, tmp_path)) == 399


def test_rescue_lists_what_is_left_if_nothing_can_be_read(
    folder: Path, tribal: Tribal, tmp_path: Path
) -> None:
    assert tribal("export", "backup.json").code == 0
    assert tribal("forget", "memory-1").code == 0
    (tmp_path / "not-a-bundle.json").write_text("{}")
    (folder / "chroma.sqlite3").write_bytes(os.urandom(40_000))
    ran = tribal("rescue", "out.json")
    assert ran.code == 5
    assert f"{tmp_path / 'backup.json'} (399 memories)" in ran.err
    assert f"1 restore point in {folder}/tribal-mcp/restore" in ran.err
    assert f"tribal-mcp import {tmp_path / 'backup.json'}" in ran.err
    assert "not-a-bundle" not in ran.err
    assert "tribal-mcp rescue" not in ran.err


def test_a_mark_that_cannot_be_true_is_found_and_corrected(
    folder: Path, tribal: Tribal, tmp_path: Path
) -> None:
    change(folder, "UPDATE max_seq_id SET seq_id = 1000000")
    assert "that Chroma's log never had" in tribal("check").out
    assert tribal("export", "before.json").code == 0
    refused = tribal("remember", "A new memory.")
    assert (refused.code, "check --repair" in refused.err) == (5, True)
    assert tribal("check", "--repair").code == 0
    assert tribal("check").code == 0
    assert tribal("remember", "A new memory.").code == 0
    assert tribal("export", "after.json").code == 0
    before, after = (
        json.loads((tmp_path / name).read_text())["entries"]
        for name in ("before.json", "after.json")
    )
    assert before == [e for e in after if e["id"].startswith("memory-")]
    assert len(after) == COUNT


def test_an_emptied_log_never_makes_a_new_memory_disappear(
    folder: Path, tribal: Tribal, tmp_path: Path
) -> None:
    """SQLite would give out the numbers of the log again, and Chroma ignores those."""
    change(folder, "DELETE FROM embeddings_queue", "DELETE FROM max_seq_id WHERE 0")
    lost = tribal("check")
    assert (lost.code, "lost their vectors" in lost.out) == (5, True)
    assert tribal("check", "--repair").code == 0
    for number in range(3):
        assert tribal("remember", f"New memory {number}.").code == 0
    assert tribal("export", "out.json").code == 0
    entries = json.loads((tmp_path / "out.json").read_text())["entries"]
    assert len(entries) == COUNT - 1 + 3
    assert tribal("check").code == 0


def test_a_missing_full_text_table_is_found_and_created_again(folder: Path, tribal: Tribal) -> None:
    change(folder, "DROP TABLE embedding_fulltext_search")
    found = tribal("check")
    assert (found.code, "full-text table" in found.out) == (5, True)
    refused = tribal("remember", "A new memory.")
    assert (refused.code, "check --repair" in refused.err) == (5, True)
    assert tribal("export", "out.json").code == 0
    repaired = tribal("check", "--repair")
    assert (repaired.code, "full-text table" in repaired.out) == (0, True)
    assert tribal("remember", "A new memory.").code == 0
    assert tribal("check").code == 0
    with sqlite3.connect(folder / "chroma.sqlite3") as sql:
        query = "SELECT count(*) FROM embedding_fulltext_search WHERE string_value LIKE ?"
        assert sql.execute(query, ["%number 77%"]).fetchone()[0] == 1
    sql.close()


def test_a_write_that_failed_for_want_of_the_full_text_table_is_completed(
    folder: Path, tribal: Tribal
) -> None:
    FolderLock(folder).set_marker()
    change(folder, "DROP TABLE embedding_fulltext_search")
    ran = tribal("export", "out.json")
    assert (ran.code, "full-text table" in ran.out) == (0, True)
    assert tribal("check").code == 0
    assert tribal("remember", "A new memory.").code == 0


async def test_vectors_of_a_collection_named_like_a_sibling_are_rescued(tmp_path: Path) -> None:
    """Before version 0.2, a collection could have such a name."""
    entries = memories(3)
    async with ChromaStore(tmp_path, "x.pending") as store:
        await store.upsert(entries)
        batches = await store.rescue(lambda salvage: [b.lines for b in salvage.lines()])
    found = b"".join(line for lines in batches for line in lines)
    assert found.count(b'"embedding":[') == 3


def test_rescue_ends_soon_if_sqlite_can_read_none_of_the_ids(
    folder: Path, tribal: Tribal, tmp_path: Path
) -> None:
    overwrite_root(folder, "embeddings", "sqlite_autoindex_embeddings_1")
    assert len([v for v in rescued(tribal, tmp_path).values() if v]) == COUNT - 1
    assert json.loads(tribal("rescue", "again.json", "--json").out)["lost_rows"] == 0


def test_a_read_that_fails_once_does_not_blame_the_full_text_table() -> None:
    class FailsOnce:
        """A database of which the first search fails, as after a failed read."""

        def __init__(self, error: sqlite3.Error) -> None:
            self.errors = [error]
            self.sql = sqlite3.connect(":memory:")
            self.sql.execute("CREATE TABLE embedding_metadata (id, key, string_value)")
            create_full_text(self.sql)

        def execute(self, statement: str) -> sqlite3.Cursor:
            if "MATCH" in statement and self.errors:
                raise self.errors.pop()
            return self.sql.execute(statement)

    once = FailsOnce(sqlite3.DatabaseError("malformed"))
    with closing(once.sql):
        assert has_full_text(once)  # type: ignore[arg-type]
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    failing = FailsOnce(error)
    with closing(failing.sql), pytest.raises(sqlite3.OperationalError):
        has_full_text(failing)  # type: ignore[arg-type]
