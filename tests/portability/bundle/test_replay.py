"""The content of a verified bundle is read again without its file, from memory or from disk."""

import os
import resource
import shutil
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.support.bundles import read, written
from tests.support.examples import memories, memory
from tribal_mcp.config import LimitSettings, Settings
from tribal_mcp.errors import BundleError, NoSpace, PathNotAllowed
from tribal_mcp.files import spool
from tribal_mcp.files.spool import Spool
from tribal_mcp.portability.bundle.entries import Item
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.memory_json import dump_entry
from tribal_mcp.services.context import Context
from tribal_mcp.services.jobs import run

TOMBSTONES = [Tombstone("erased-0", 0), Tombstone("erased-1", 1)]


def many() -> bytes:
    """More than is kept in memory, with one invalid entry and two tombstones in between."""
    entries = [memory(n, content=f"{n} " + "x" * 50_000) for n in range(400)]
    lines = [dump_entry(entry) for entry in entries]
    lines[200:200] = [
        b'{"id":"invalid"}',
        b'{"deleted":{"id":"erased-0","deleted_at":"1970-01-01"}}',
    ]
    lines.append(b'{"deleted":{"id":"erased-1","deleted_at":"1970-01-01T00:00:00.000001"}}')
    return b"\n".join(lines)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def items(reader: BundleReader) -> list[Item]:
    return [item for batch in reader.batches() for item in batch]


def test_a_verified_bundle_is_read_without_its_file() -> None:
    file = BytesIO(written(700, deleted=TOMBSTONES))
    reader = BundleReader(file)
    reader.verify()
    file.truncate(0)
    assert items(reader) == memories(700)
    assert [one for batch in reader.deleted() for one in batch] == TOMBSTONES
    assert items(reader) == memories(700)


def test_two_readers_can_replay_at_once() -> None:
    reader = BundleReader(BytesIO(written(1200)))
    one, two = reader.batches(500), reader.batches(400)
    taken = [entry for _ in range(3) for batch in (next(one), next(two)) for entry in batch]
    assert all(taken.count(entry) == 2 for entry in memories(1200))


def test_a_large_bundle_is_kept_in_a_private_unnamed_file(tmp_path: Path) -> None:
    with Spool(tmp_path).scratch() as file:
        reader = BundleReader(BytesIO(many()), scratch=lambda: file)
        assert reader.verify().rejected_count == 1
        found = os.fstat(file.fileno())
        assert found.st_size > 20_000_000
        assert found.st_mode & 0o777 == 0o600
        assert files_below(tmp_path) == []  # even if the process were killed now
        assert items(reader) == read(many()).items
        assert len(items(reader)) == 401
        assert [one for batch in reader.deleted() for one in batch] == TOMBSTONES
    assert file.closed


def test_a_small_bundle_is_kept_in_memory() -> None:
    def scratch() -> BinaryIO:
        raise AssertionError

    reader = BundleReader(BytesIO(written(700)), scratch=scratch)
    assert items(reader) == memories(700)


@pytest.mark.parametrize("short_of_bytes", [10, 5_000_000])
def test_a_full_disk_raises_no_space_and_leaves_no_file(
    tmp_path: Path, short_of_bytes: int
) -> None:
    with Spool(tmp_path).scratch() as file:
        BundleReader(BytesIO(many()), scratch=lambda: file).verify()
        whole = os.fstat(file.fileno()).st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole - short_of_bytes, hard))
    try:
        with Spool(tmp_path).scratch() as file:
            reader = BundleReader(BytesIO(many()), scratch=lambda: file)
            with pytest.raises(NoSpace, match=r"A spool file .* can't be written"):
                reader.verify()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_below(tmp_path) == []


def test_a_missing_temporary_folder_raises_no_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with (
            pytest.raises(NoSpace, match="needs a writable temporary folder"),
            Spool(tmp_path / "none").scratch(elsewhere=True),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_move_to_disk_releases_the_buffer_in_memory() -> None:
    class Full(BytesIO):
        def write(self, data: object, /) -> int:
            raise NoSpace(f"no room for {type(data)}")

    reader = BundleReader(BytesIO(many()), scratch=Full)
    held = reader._replay._file
    with pytest.raises(NoSpace) as caught:
        reader.verify()
    held.close()  # a buffer that is still exported makes this a BufferError
    assert caught.tb is not None, "its frames refer to the buffer"


def test_a_removed_folder_does_not_affect_the_replay(tmp_path: Path) -> None:
    with Spool(tmp_path / "data").scratch() as file:
        shutil.rmtree(tmp_path / "data")
        reader = BundleReader(BytesIO(many()), scratch=lambda: file)
        assert items(reader) == read(many()).items


def test_a_spool_file_leaves_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Spool(tmp_path).scratch() as file:
        file.write(b"x")
        monkeypatch.setattr(spool, "_free_bytes", lambda *_: 65 << 20)
        file.write(b"x")
        with pytest.raises(NoSpace, match="less than 64 MiB of the disk"):
            file.write(bytes(2 << 20))


def test_an_unreadable_spool_file_is_refused_in_plain_words(tmp_path: Path) -> None:
    with Spool(tmp_path).scratch() as file, (tmp_path / "other").open("wb") as other:
        reader = BundleReader(BytesIO(many()), scratch=lambda: file)
        reader.verify()
        os.dup2(other.fileno(), file.fileno())  # open for writing only
        with pytest.raises(PathNotAllowed, match="A spool file below TRIBAL_DATA_DIR can't"):
            list(reader.batches())


async def test_a_dry_run_of_a_large_bundle_creates_no_file(tmp_path: Path) -> None:
    (tmp_path / "many.jsonl").write_bytes(many())
    arguments = {"input_path": str(tmp_path / "many.jsonl"), "dry_run": True}
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "tribal-mcp").write_text("no folder")
    for data_dir in (tmp_path / "none", blocked):
        settings = Settings(data_dir=data_dir)
        context = Context(settings, LimitSettings(), trusted=True)
        result = (await run(context, "import", arguments)).model_dump()
        assert (result["imported"], result["errors"]) == (400, 1)
    assert not (tmp_path / "none").exists()
    assert {path.name for path in files_below(tmp_path)} == {"tribal-mcp", "many.jsonl"}


def test_large_entries_come_in_short_lists() -> None:
    long = "x" * (1 << 20)
    lines = [dump_entry(memory(n, content=f"{n}{long}")) for n in range(40)]
    values: dict[str, Any] = {"many": [{"a": 0}] * 30_000}  # twenty times as large as Python values
    lines += [dump_entry(memory(n, metadata=values)) for n in range(40, 60)]
    batches = list(BundleReader(BytesIO(b"\n".join(lines))).batches())
    assert sum(map(len, batches)) == 60
    assert max(map(len, batches)) < 20


@pytest.mark.parametrize("changed", [b"number 99", b"erased-0"])
def test_a_file_that_changes_between_two_passes_is_refused(changed: bytes) -> None:
    # A possible duplicate id takes a second pass, and the file has no checksum.
    lines = [dump_entry(entry) for entry in [*memories(500), memory(7)]]
    lines.append(b'{"deleted":{"id":"erased-0","deleted_at":"1970-01-01"}}')
    data = b"\n".join(lines)
    file = BytesIO(data)
    passes: list[int] = []

    def change(done: int, total: int) -> None:
        if done == total:
            passes.append(done)
            file.getbuffer()[data.index(changed) + len(changed) - 1] = ord("8")

    with pytest.raises(BundleError, match="changed while it was read"):
        BundleReader(file).verify(change)
    assert len(passes) == 2
