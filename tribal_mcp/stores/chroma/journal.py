"""A batch that takes more than one step, written down before the first.

Chroma makes one call whole or not at all, but replacing a memory takes two, and one that gains or
loses its vector moves to another collection. So the whole batch is put on disk first; whoever next
gets the lock and finds a whole journal carries it out again, from the start, to the same end. A
journal that is not whole was never begun.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tribal_mcp.files.atomic import write_atomically
from tribal_mcp.portability.limits import NO_LIMITS
from tribal_mcp.portability.memory_json import dump_entry, entry_from_dict
from tribal_mcp.stores.base import Change


@dataclass(frozen=True, slots=True)
class Batch:
    """A change of one collection and its siblings.

    Attributes:
        collection: its name.
        change: what goes, and then what comes.
        metadata: of the collection, where it is made anew on the way.
    """

    collection: str
    change: Change
    metadata: dict[str, Any] | None = None


class Journal:
    """The batch in hand, in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, batch: Batch) -> None:
        """Put the batch on disk; when this returns, it will be carried out."""
        head = {
            "collection": batch.collection,
            "forget": dict(batch.change.forget),
            "erase": list(batch.change.erase),
            "metadata": batch.metadata,
        }
        entries = batch.change.entries
        lines = (orjson.dumps(head), *map(dump_entry, entries), b"%d" % len(entries))
        # A recovery writes the batch that it completes: until then the earlier file stays.
        write_atomically(self._path, (line + b"\n" for line in lines))

    def read(self) -> Batch | None:
        """The batch that was not finished; None if there is none."""
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
        """Whether a batch was written down, whole or not."""
        return self._path.exists()

    def remove(self) -> None:
        """Say that the batch is done."""
        self._path.unlink(missing_ok=True)

    def set_aside(self) -> Path:
        """Keep a batch that can't be carried out, out of the way; where it is now."""
        aside = self._path.with_name(f"refused-{time.time_ns()}.jsonl")
        self._path.replace(aside)
        return aside
