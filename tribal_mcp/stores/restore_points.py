"""What a change of many memories was made on: kept, so that one call takes it back.

Each operation that changes memories has a folder of its own among our files, named by its time:
`point.json` says what it was, and `changes.jsonl` what was there before, an id a line, on disk
before the change itself. Both stay as the record of what came from where; only the contents of old
points are removed.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import orjson
from filelock import FileLock, Timeout
from pydantic import BaseModel, Field

from tribal_mcp.errors import UsageError
from tribal_mcp.files.atomic import make_private
from tribal_mcp.portability.limits import NO_LIMITS
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, microseconds
from tribal_mcp.portability.memory_json import dump_fields, entry_fields, entry_from_dict
from tribal_mcp.portability.vectors import vector_to_base64
from tribal_mcp.stores.base import Change, MemoryStore
from tribal_mcp.stores.errors import explained

FOLDER = "restore"
KEEP = 20
"""Points whose contents are kept, unless a setting says otherwise."""

Held = MemoryEntry | int | None
"""What a store has under an id: a memory, a tombstone's time in microseconds UTC, or nothing."""


class Point(BaseModel):
    """An operation that changed memories.

    Attributes:
        id: its name, by its time in UTC.
        operation: what changed them: import, undo, forget.
        source: the name of the bundle, or the point that was undone.
        sha256: the hash of the bundle's entries.
        how: its arguments, in words.
        counts: what it did, in words and numbers; empty while it is not complete.
        complete: it came to its end.
        undone: it was taken back.
        emptied: its contents were removed, as it is old.
        kept: the collection that holds all memories as they were before, if it replaced them.
        kept_ids: Chroma's ids of that collection and its sibling.
        kept_count: how many memories they hold; None when an undoing has begun to change them.
        collection: the collection of the folder that it is about.
        model: the model of the vectors that it saved.
        identity: the model of the store's vectors, before it and after it, if it changed that.
    """

    id: str
    operation: str
    source: str = ""
    sha256: str = ""
    how: str = ""
    counts: dict[str, int] = Field({})
    complete: bool = False
    undone: bool = False
    emptied: bool = False
    kept: str = ""
    kept_ids: list[str] = Field([])
    kept_count: int | None = None
    collection: str = ""
    model: dict[str, Any] | None = None
    identity: tuple[dict[str, Any] | None, dict[str, Any] | None] | None = None

    @property
    def made_at(self) -> datetime:
        """When it began."""
        return datetime.strptime(self.id, _NAME).replace(tzinfo=UTC)

    def is_of(self, model: EmbeddingMetadata | None) -> bool:
        """Whether the vectors that it saved may stand beside those of that model."""
        its = [self.model, self.identity[1] if self.identity else self.model]
        if model is None:
            return None in its
        return any(
            one and EmbeddingMetadata.from_dict(one).is_compatible_with(model) for one in its
        )


_NAME = "%Y%m%d-%H%M%S-%f"


@dataclass(frozen=True, slots=True)
class Saved:
    """What an operation found under an id, and the `stamp` of what it left there."""

    id: str
    was: Held
    now: int | None


@dataclass(slots=True)
class OpenPoint:
    """A point that an operation writes; nothing is made before the first change.

    `finish` it at the end of the operation, or `close` it if that ends in an error.
    """

    points: "RestorePoints"
    about: Point
    _lock: FileLock
    """Held until the end, so that nobody goes on with a point that is being written."""
    _resumed: bool = False
    """An interrupted operation has begun it."""
    _begun: bool = field(default=False, init=False)

    def save(self, before: Mapping[str, Held], change: Change) -> None:
        """Put what is under the ids of a change on disk, before it is made."""
        path = self.points.changes(self.about.id)
        with explained(path.parent):
            if not self._begun:
                self.points.save(self.about)
                _taken(self._lock)
                _cut_torn_line(path)
                self._begun = True
            with path.open("ab") as file:
                after = {e.id: stamp(e) for e in change.entries} | dict(change.forget)
                file.writelines(_line(i, was, after.get(i)) for i, was in before.items())
                file.flush()
                os.fsync(file.fileno())

    def note_identity(
        self, before: EmbeddingMetadata | None, after: EmbeddingMetadata | None
    ) -> None:
        """Say which model the store's vectors have by this operation; call it before `save`."""
        if self.about.identity:
            first = self.about.identity[0]
        else:
            first = before.to_dict() if before else None
        self.about.identity = (first, after.to_dict() if after else None)
        self._begun = False

    def finish(self, counts: dict[str, int]) -> str:
        """Say that the operation is complete; the point's name, empty if nothing was changed."""
        if self.name:
            if self._resumed:  # the counts are of the rest only
                counts = {"changed": len(set(self.points.ids(self.about)))}
            self.about.counts = {what: count for what, count in counts.items() if count}
            self.about.complete = True
            with explained(self.points.folder):
                self.points.save(self.about)
                self.points.empty_old()
        self.close()
        return self.name

    def close(self) -> None:
        """Leave it to whoever goes on with it."""
        self._lock.release(force=True)  # it is taken with each `note_identity` again

    @property
    def name(self) -> str:
        """The point's name; empty while nothing was changed."""
        return self.about.id if self._begun or self._resumed else ""


@dataclass(frozen=True, slots=True)
class RestorePoints:
    """The points of one store.

    Attributes:
        folder: where they lie.
        keep: how many keep their contents.
        collection: the one that they are about, where several share the folder.
    """

    folder: Path
    keep: int = KEEP
    collection: str = ""

    @classmethod
    def of(cls, store: MemoryStore, keep: int = KEEP) -> Self | None:
        """Those of a store; None if it has no place for any."""
        if store.own_folder is None:
            return None
        return cls(store.own_folder / FOLDER, keep, getattr(store, "name", ""))

    def begin(
        self,
        operation: str,
        source: str = "",
        sha256: str = "",
        how: str = "",
        *,
        model: EmbeddingMetadata | None = None,
    ) -> OpenPoint:
        """A point for an operation; one that was interrupted goes on where it was.

        Args:
            operation: what it is.
            source: of what bundle or point.
            sha256: of the bundle's entries; only then an interrupted one goes on.
            how: its arguments, in words.
            model: the model of the store's vectors.
        """
        last = next(iter(self.all()), None)
        same = (operation, source, sha256, how)
        if (
            last
            and not (last.complete or last.undone or last.emptied)
            and sha256
            and same == (last.operation, last.source, last.sha256, last.how)
            and last.is_of(model)
            and _taken(lock := self._lock_of(last.id))
        ):
            return OpenPoint(self, last, lock, _resumed=True)
        now = datetime.now(UTC)
        about = Point(
            id=now.strftime(_NAME),
            operation=operation,
            source=source,
            sha256=sha256,
            how=how,
            model=model.to_dict() if model else None,
            collection=self.collection,
        )
        return OpenPoint(self, about, self._lock_of(about.id))

    def _lock_of(self, name: str) -> FileLock:
        return FileLock(self.folder / name / "writing.lock", thread_local=False)

    def all(self) -> list[Point]:
        """All points, the newest first."""
        found: list[Point] = []
        for path in sorted(self.folder.glob("*/point.json"), reverse=True):
            with suppress(ValueError):  # killed before its first line was whole: nothing changed
                found.append(Point.model_validate_json(path.read_bytes()))
        return [point for point in found if point.collection == self.collection]

    def find(self, name: str) -> Point:
        """The point of that name; with "" the newest, but for those that only undo.

        Raises:
            UsageError: there is none.
        """
        points = self.all()
        if not points:
            raise UsageError("There is nothing to undo: no operation has changed memories yet.")
        for point in points:
            if point.id == name or (not name and point.operation != "undo"):
                return point
        raise UsageError(
            f"There is no restore point {name!r}; the newest is {points[0].id!r}. "
            "`tribal-mcp history` lists them."
        )

    def before(self, point: Point) -> Iterator[Saved]:
        """What was under each id before that operation, each id once.

        Raises:
            UsageError: its contents were removed.
        """
        if point.emptied:
            raise UsageError(
                f"The contents of the restore point {point.id} were removed, as more than "
                f"{self.keep} came after it (TRIBAL_RESTORE_POINTS)."
            )
        seen: set[str] = set()
        for data in self._lines(point):
            if data["id"] not in seen:
                seen.add(data["id"])
                yield Saved(data["id"], _held(data["was"]), data["now"])

    def ids(self, point: Point) -> Iterator[str]:
        """The ids that an operation changed."""
        return (data["id"] for data in self._lines(point))

    def _lines(self, point: Point) -> Iterator[dict[str, Any]]:
        path = self.changes(point.id)
        if not path.exists():
            return
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):  # else killed before it was whole: nothing changed
                    yield orjson.loads(line)

    def changes(self, name: str) -> Path:
        """The file of what was before."""
        return self.folder / name / "changes.jsonl"

    def save(self, about: Point) -> None:
        """Write what is known of an operation, whole or not at all."""
        place = self.folder / about.id
        make_private(place)
        part = place / "point.part"
        with part.open("wb") as file:
            file.write(about.model_dump_json(indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(place / "point.json")

    def empty_old(self) -> None:
        """Remove the contents of all but the newest points; the ids stay."""
        for point in self.all()[self.keep :]:
            if point.emptied or point.kept:  # a whole collection is kept until the next one is
                continue
            path = self.changes(point.id)
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                file.writelines(orjson.dumps({"id": i}) + b"\n" for i in self.ids(point))
            point.emptied = True
            self.save(point)
            part.replace(path)


def _taken(lock: FileLock) -> bool:
    """Take the lock if nobody has it; whether that was so."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def stamp(held: Held) -> int | None:
    """The time of a memory's last change, or of a tombstone, in microseconds UTC."""
    return microseconds(held.updated_at) if isinstance(held, MemoryEntry) else held


def _line(memory_id: str, was: Held, now: int | None) -> bytes:
    if isinstance(was, MemoryEntry):
        fields = entry_fields(was)
        if was.embedding is not None:
            fields["embedding"] = vector_to_base64(was.embedding)
        head = orjson.dumps({"id": memory_id, "now": now})
        return b'%s,"was":%s}\n' % (head[:-1], dump_fields(fields))
    return orjson.dumps({"id": memory_id, "now": now, "was": was}) + b"\n"


def _held(was: dict[str, Any] | int | None) -> Held:
    return entry_from_dict(was, NO_LIMITS) if isinstance(was, dict) else was


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        whole = sum(len(line) for line in file if line.endswith(b"\n"))
        file.truncate(whole)
