"""A batch that takes more than one step is written to a file before its first step.

A single call to Chroma is atomic. But replacing a memory takes two, and a memory that gains or
loses its vector moves to another collection. So the whole batch is put on disk first. Whoever next
gets the lock and finds a whole journal applies the batch again, from its start, with the same
result. An incomplete journal means that the batch was never started.
"""

import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from tribal_mcp.files.atomic import fsync_directory, remove_durably, write_atomically
from tribal_mcp.portability.limits import NO_LIMITS
from tribal_mcp.portability.memory_json import dump_entry, entry_from_dict
from tribal_mcp.stores.base import Change


@dataclass(frozen=True, slots=True)
class Batch:
    """A change of one collection and its siblings.

    Attributes:
        collection: the name of the collection.
        change: the memories to delete and to write.
        metadata: the metadata of the collection, if the batch has to create it again.
    """

    collection: str
    change: Change
    metadata: dict[str, Any] | None = None


class Journal:
    """The batch in progress, in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, batch: Batch) -> None:
        """Put the batch on disk; once this returns, the batch will be applied."""
        head = {
            "collection": batch.collection,
            "forget": dict(batch.change.forget),
            "erase": list(batch.change.erase),
            "metadata": batch.metadata,
        }
        entries = batch.change.entries
        lines = chain([orjson.dumps(head)], map(dump_entry, entries), [b"%d" % len(entries)])
        # A recovery writes the batch that it completes: until then the earlier file stays.
        write_atomically(self._path, (line + b"\n" for line in lines))

    def read(self) -> Batch | None:
        """The unfinished batch, None if there is none."""
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return None
        if len(lines) < 3 or lines[-1] or lines[-2] != b"%d" % (len(lines) - 3):  # noqa: PLR2004 - head, count, end
            return None
        head = orjson.loads(lines[0])
        entries = [entry_from_dict(orjson.loads(line), NO_LIMITS) for line in lines[1:-2]]
        change = Change(entries, head["forget"], head["erase"])
        return Batch(head["collection"], change, head["metadata"])

    def exists(self) -> bool:
        """Whether there is a journal, whole or not."""
        return self._path.exists()

    def remove(self) -> None:
        """Record that the batch is complete."""
        remove_durably(self._path)  # one that came back would be applied again

    def set_aside(self) -> Path:
        """Keep a batch that can't be applied under another name; the new path."""
        aside = self._path.with_name(f"refused-{time.time_ns()}.jsonl")
        self._path.replace(aside)
        fsync_directory(aside.parent)
        return aside
