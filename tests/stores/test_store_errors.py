"""A failed system call becomes a message that says what failed, on which file, and what to do."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from tests.support.examples import memory
from tribal_mcp.errors import NoSpace, StoreDamaged, StoreError, SystemFailure
from tribal_mcp.files import atomic
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma.files import index_backup
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.errors import explained
from tribal_mcp.stores.last_export import last_export, record_export
from tribal_mcp.stores.restore_points import RestorePoints

pytestmark = pytest.mark.anyio


class InternalError(Exception):
    """As Chroma raises it."""


InternalError.__module__ = "chromadb.errors"


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.EIO, SystemFailure, "The disk reports an I/O error on 'tribal-mcp/journal.part' in"),
        (errno.ENOSPC, NoSpace, "'tribal-mcp/journal.part' .* the disk is full"),
        (errno.EDQUOT, NoSpace, "your disk quota is used up"),
        (errno.EMFILE, SystemFailure, "too many open files.*ulimit -n"),
        (errno.EACCES, StoreError, "permission denied"),
        (errno.EROFS, StoreError, "mounted read-only"),
    ],
)
def test_each_failure_has_its_own_words(
    tmp_path: Path, number: int, kind: type[StoreError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught, explained(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / "tribal-mcp" / "journal.part"))
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InternalError("error returned from database: (code: 778) disk I/O error"), "I/O error"),
        (InternalError("Input/output error (os error 5)"), "I/O error"),
        (InternalError("Too many open files (os error 24)"), "too many open files"),
    ],
)
def test_failures_that_chroma_reports_are_recognised(
    tmp_path: Path, error: Exception, message: str
) -> None:
    with pytest.raises(SystemFailure, match=message), explained(tmp_path):
        raise error


def test_a_database_that_is_intact_when_read_again_is_not_called_damaged(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "chroma.sqlite3") as sql:
        sql.execute("CREATE TABLE a (b)")
    message = "(code: 11) database disk image is malformed"
    with pytest.raises(SystemFailure, match="the disk may be failing"), explained(tmp_path):
        raise InternalError(message)
    sql.close()
    (tmp_path / "chroma.sqlite3").write_bytes(b"not a database, but long enough" * 100)
    with pytest.raises(StoreDamaged), explained(tmp_path):
        raise InternalError(message)


def test_a_directory_in_the_place_of_a_restore_point_is_reported(tmp_path: Path) -> None:
    points = RestorePoints(tmp_path / "tribal-mcp" / "restore")
    point = points.begin("import")
    (points.folder / point.about.id / "point.part").mkdir(parents=True)
    message = r"'tribal-mcp/restore/.*/point\.part' .* it is a directory, not a file"
    with pytest.raises(StoreError, match=message):
        point.save({"memory-0": None}, Change([memory(0)]))


def test_an_export_that_is_not_recorded_says_so(tmp_path: Path) -> None:
    assert record_export(tmp_path, "memories", {"at": "now"}) == ""
    (tmp_path / "last-export.part").mkdir()
    note = record_export(tmp_path, "memories", {"at": "later"})
    assert note.startswith("The bundle is complete, but was not recorded")
    assert last_export(tmp_path, "memories") == {"at": "now"}
    (tmp_path / "last-export.json").unlink()
    (tmp_path / "last-export.json").mkdir()
    with pytest.raises(StoreError, match="it is a directory"):
        last_export(tmp_path, "memories")


async def test_an_index_that_was_not_written_is_rebuilt_from_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ChromaStore(tmp_path) as store:
        await store.upsert([memory(n) for n in range(600)])

        def lose(path: Path) -> None:
            if path.name == "data_level0.bin":
                path.write_bytes(path.read_bytes()[:-4096])
            atomic.fsync_path(path)

        with monkeypatch.context() as disk:
            disk.setattr(index_backup, "fsync_path", lose)
            with pytest.raises(SystemFailure, match="did not store all of the vector index"):
                await store.upsert([memory(n) for n in range(600, 1200)])
    async with ChromaStore(tmp_path) as store:
        found = await store.get_many([f"memory-{n}" for n in range(1200)])
        assert all(found[f"memory-{n}"] == memory(n) for n in range(600))
        assert [p.message for p in await store.check()] == []
        await store.upsert([memory(n) for n in range(600, 1200)])
        assert await store.count() == 1200
        assert [p.message for p in await store.check()] == []
