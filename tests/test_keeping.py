"""What a bundle gave while it was verified is given again, whatever becomes of its file."""

import os
import resource
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.bundles import read, written
from tests.examples import memories, memory
from tribal_mcp.errors import BundleError, NoSpace
from tribal_mcp.portability.bundle import BundleReader, Tombstone
from tribal_mcp.portability.memory import dump_entry
from tribal_mcp.portability.reading import Item
from tribal_mcp.spool import Spool

FORGOTTEN = [Tombstone("gone-0", 0), Tombstone("gone-1", 1)]


def many() -> bytes:
    """More than memory is to hold, one entry of it wrong, and what was forgotten in between."""
    entries = [memory(n, content=f"{n} " + "x" * 50_000) for n in range(400)]
    lines = [dump_entry(entry) for entry in entries]
    lines[200:200] = [b'{"id":"wrong"}', b'{"deleted":{"id":"gone-0","deleted_at":"1970-01-01"}}']
    lines.append(b'{"deleted":{"id":"gone-1","deleted_at":"1970-01-01T00:00:00.000001"}}')
    return b"\n".join(lines)


def items(reader: BundleReader) -> list[Item]:
    return [item for batch in reader.batches() for item in batch]


def test_what_was_verified_is_given_when_the_file_is_gone() -> None:
    file = BytesIO(written(700, deleted=FORGOTTEN))
    reader = BundleReader(file)
    reader.verify()
    file.truncate(0)
    assert items(reader) == memories(700)
    assert [one for batch in reader.deleted() for one in batch] == FORGOTTEN
    assert items(reader) == memories(700)


def test_two_may_read_it_at_once() -> None:
    reader = BundleReader(BytesIO(written(1200)))
    one, two = reader.batches(500), reader.batches(400)
    taken = [entry for _ in range(3) for batch in (next(one), next(two)) for entry in batch]
    assert all(taken.count(entry) == 2 for entry in memories(1200))


def test_a_large_bundle_is_kept_in_a_private_file_of_which_nothing_is_left(tmp_path: Path) -> None:
    with Spool(tmp_path).scratch() as file:
        reader = BundleReader(BytesIO(many()), scratch=lambda: file)
        assert reader.verify().rejected_count == 1
        found = os.fstat(file.fileno())
        assert found.st_size > 20_000_000
        assert found.st_mode & 0o777 == 0o600
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []  # were it killed now
        assert items(reader) == read(many()).items
        assert len(items(reader)) == 401
        assert [one for batch in reader.deleted() for one in batch] == FORGOTTEN
    assert file.closed


def test_a_small_bundle_needs_no_file() -> None:
    def scratch() -> BinaryIO:
        raise AssertionError

    reader = BundleReader(BytesIO(written(700)), scratch=scratch)
    assert items(reader) == memories(700)


def test_a_disk_without_room_for_it_is_no_space_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (17 << 20, hard))
    try:
        with ExitStack() as stack:
            scratch = partial(stack.enter_context, Spool(tmp_path).scratch())
            reader = BundleReader(BytesIO(many()), scratch=scratch)
            with pytest.raises(NoSpace, match="no room to write a file on its way"):
                reader.verify()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_that_changes_between_two_looks_at_it_is_refused() -> None:
    # An id that may stand twice takes a second look; nothing in the file itself would tell.
    data = b"\n".join(dump_entry(entry) for entry in [*memories(500), memory(7)])
    file = BytesIO(data)
    looks: list[int] = []

    def change(done: int, total: int) -> None:
        if done == total:
            looks.append(done)
            file.getbuffer()[data.index(b"number 99") + 8] = ord("8")

    with pytest.raises(BundleError, match="was changed while it was read"):
        BundleReader(file).verify(change)
    assert len(looks) == 1
