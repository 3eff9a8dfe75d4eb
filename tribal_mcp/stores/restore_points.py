"""Restore points: what the store held before each operation, so that it can be undone.

Each operation that changes memories has its own folder among our files, named by its time:
`point.json` describes the operation, and `changes.jsonl` has a line for each id with what was there
before. A line is on the disk before its memory changes. Both files stay as the history of the
store; only the contents of old restore points are removed. A number in `point.json` gives their
order, since a clock may be set back. The module has more than 300 lines because the format of these
files and their only reader and writer belong together.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import orjson
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field

from tribal_mcp.errors import TribalError, UsageError
from tribal_mcp.files.atomic import (
    fsync_directory,
    fsync_file,
    make_private,
    naming,
    open_own,
    write_atomically,
)
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.limits import NO_LIMITS
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, microseconds
from tribal_mcp.portability.memory_json import dump_fields, entry_fields, entry_from_dict
from tribal_mcp.portability.vectors import vector_to_base64
from tribal_mcp.stores.base import Change, MemoryStore
from tribal_mcp.stores.errors import explained
from tribal_mcp.text import counted

FOLDER = "restore"
SESSION = "remember"
"""The operation whose restore point grows with each memory that a process stores."""
REPAIR = "repair"
"""The operation that keeps nothing of what was before, so it can't be undone."""
KEEP = 20
"""How many restore points keep their contents by default."""

Held = MemoryEntry | int | None
"""What a store holds under an id: a memory, a tombstone's time in microseconds UTC, or nothing."""


class Point(BaseModel):
    """An operation that changed memories.

    Attributes:
        id: the name of the restore point: the operation's time in UTC.
        number: rises with each restore point of the folder; 0 in those of versions before 0.2.
        operation: what changed the memories: import, undo, forget, reembed, copy, remember, repair,
            sync, withdraw.
        source: the name of the bundle, or the restore point that was undone.
        sha256: the hash of the bundle's entries.
        how: the arguments, as text.
        counts: what was done and to how many memories; empty until the operation is complete.
        complete: the operation ended.
        undone: the operation was undone.
        emptied: the contents were removed because of their age.
        kept: the collection with all memories as they were, if the operation replaced it.
        kept_ids: Chroma's ids of that collection and its sibling.
        kept_count: how many memories they hold; None once undo has begun to change them.
        collection: the collection that was changed.
        model: the model of the saved vectors.
        identity: the model of the store's vectors before and after, if the operation changed it.
    """

    model_config = ConfigDict(defer_build=True)

    id: str
    number: int = 0
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
    def order(self) -> tuple[int, str]:
        """Sorts restore points by their age."""
        return self.number, self.id

    @property
    def made_at(self) -> datetime:
        """When it began."""
        return time_of(self.id)

    def is_of(self, model: EmbeddingMetadata | None) -> bool:
        """Whether the saved vectors are compatible with that model."""
        models = [self.model, self.identity[1] if self.identity else self.model]
        if model is None:
            return None in models
        return any(m and EmbeddingMetadata.from_dict(m).is_compatible_with(model) for m in models)


_NAME = "%Y%m%d-%H%M%S-%f"


@dataclass(frozen=True, slots=True)
class Saved:
    """What an operation found under an id, and the `stamp` of what it wrote there."""

    id: str
    was: Held
    now: int | None


@dataclass(slots=True)
class OpenPoint:
    """The restore point of a running operation; its folder is created with the first change.

    Call `finish` at the end of the operation, or `close` if the operation fails.
    """

    points: "RestorePoints"
    about: Point
    _lock: FileLock
    """Held until the end, so that no other process continues this restore point meanwhile."""
    _resumed: bool = False
    """An interrupted operation began it."""
    _begun: bool = field(default=False, init=False)

    def save(self, before: Mapping[str, Held], change: Change) -> None:
        """Write to the disk what is under the ids of a change, before the change is made."""
        path = self.points.changes(self.about.id)
        with self.points.explained():
            is_new = not self._begun
            if is_new:
                self.points.save(self.about)
                _try_lock(self._lock)
                _cut_incomplete_line(path)
                self._begun = True
            with naming(path), open_own(path, "ab") as file:
                after = {e.id: stamp(e) for e in change.entries} | dict(change.forget)
                file.writelines(_line(i, was, after.get(i)) for i, was in before.items())
                file.flush()
                fsync_file(file.fileno())
            if is_new:
                fsync_directory(path.parent)

    def note_identity(
        self, before: EmbeddingMetadata | None, after: EmbeddingMetadata | None
    ) -> None:
        """Record that the operation changes the model of the store; call this before `save`."""
        if self.about.identity:
            first = self.about.identity[0]
        else:
            first = before.to_dict() if before else None
        self.about.identity = (first, after.to_dict() if after else None)
        self._begun = False

    def finish(self, counts: dict[str, int]) -> str:
        """Mark the operation as complete.

        Returns:
            The name of the restore point; empty if nothing was changed.
        """
        if self.name:
            if self._resumed:  # `counts` leaves out what the interrupted operation did
                counts = {"changed": len(set(self.points.ids(self.about)))}
            self.about.counts = {what: count for what, count in counts.items() if count}
            self.about.complete = True
            with after_changes(self.name):
                self.points.save(self.about)
                self.points.empty_old()
        self.close()
        return self.name

    def close(self) -> None:
        """Release the restore point, so that a repeated operation can continue it."""
        self._lock.release(force=True)  # it was acquired again after each `note_identity`

    @property
    def name(self) -> str:
        """The name of the restore point; empty while nothing was changed."""
        return self.about.id if self._begun or self._resumed else ""


@dataclass(frozen=True, slots=True)
class RestorePoints:
    """The restore points of one store.

    Attributes:
        folder: where they are.
        keep: how many keep their contents.
        collection: the collection they are for, as several may share the folder.
    """

    folder: Path
    keep: int = KEEP
    collection: str = ""

    @classmethod
    def of(cls, store: MemoryStore, keep: int = KEEP) -> Self | None:
        """The restore points of a store; None if it has no folder for them."""
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
        """The restore point for an operation; a repeated one continues where it was interrupted.

        Args:
            operation: its name.
            source: the name of the bundle, or of a restore point.
            sha256: the hash of the bundle's entries; without it nothing is continued.
            how: its arguments, as text.
            model: the model of the store's vectors.
        """
        points = self._of_all()
        last = next(
            (p for p in points if p.collection == self.collection and p.operation != SESSION), None
        )
        same = (operation, source, sha256, how)
        if (
            last
            and not (last.complete or last.undone or last.emptied)
            and sha256
            and same == (last.operation, last.source, last.sha256, last.how)
            and last.is_of(model)
            and _try_lock(lock := self._lock_of(last.id))
        ):
            return OpenPoint(self, last, lock, _resumed=True)
        about = Point(
            id=self._free_name(),
            number=1 + (points[0].number if points else 0),
            operation=operation,
            source=source,
            sha256=sha256,
            how=how,
            model=model.to_dict() if model else None,
            collection=self.collection,
        )
        return OpenPoint(self, about, self._lock_of(about.id))

    def record_repair(self, done: int) -> None:
        """Add a repair, which can't be undone, to the history.

        Args:
            done: how many problems were repaired.
        """
        point = self.begin(REPAIR)
        point.about.emptied = point.about.complete = True
        point.about.counts = {"repaired": done}
        self.save(point.about)

    def _lock_of(self, name: str) -> FileLock:
        return FileLock(self.folder / name / "writing.lock", thread_local=False)

    def _free_name(self) -> str:
        moment = datetime.now(UTC)
        while (self.folder / (name := moment.strftime(_NAME))).exists():  # the clock was set back
            moment += timedelta(microseconds=1)
        return name

    def explained(self) -> AbstractContextManager[None]:
        """Raises failures on these files as errors for users."""
        return explained(self.folder.parents[1])

    def all(self) -> list[Point]:
        """All restore points, the newest first."""
        return [point for point in self._of_all() if point.collection == self.collection]

    def _of_all(self) -> list[Point]:
        """The restore points of all collections that share the folder, the newest first."""
        found: list[Point] = []
        with self.explained():
            for folder in self.folder.iterdir() if self.folder.is_dir() else ():
                # incomplete or missing: the process was killed before it changed anything
                with suppress(ValueError, FileNotFoundError, NotADirectoryError):
                    data = (folder / "point.json").read_bytes()
                    found.append(Point.model_validate_json(data))
        return sorted(found, key=lambda point: point.order, reverse=True)

    def find(self, name: str) -> Point:
        """The restore point of that name; for "" the newest operation that can be undone.

        Operations that were undone, and undos, are left out.

        Raises:
            UsageError: there is none.
        """
        points = self.all()
        if not points:
            raise UsageError("Nothing left to undo: no operation has changed memories yet.")
        for point in points:
            can_undo = not (point.undone or point.emptied or point.operation == "undo")
            if point.id == name or (not name and can_undo):
                return point
        if not name:
            left = any(p.emptied and not p.undone and p.operation != REPAIR for p in points)
            old = "Older ones are no longer kept." if left else ""
            raise UsageError(
                f"Nothing left to undo. {old}".rstrip(),
                NextStep("To reverse an undo, take its restore point from {call}.", "history"),
            )
        raise UsageError(
            f"There is no restore point {name!r:.80}; the newest is {points[0].id!r}.",
            NextStep("To list all, run {call}.", "history"),
        )

    def before(self, point: Point) -> Iterator[Saved]:
        """What was under each id before the operation; each id comes once.

        Raises:
            UsageError: the contents were removed.
        """
        if point.operation == REPAIR:
            raise UsageError(f"{point.id} is a repair, which can't be undone.")
        if point.emptied:
            raise UsageError(
                f"The restore point {point.id} can't be undone any more: only the contents of the "
                f"newest {counted(self.keep, 'restore point')} are kept (TRIBAL_RESTORE_POINTS)."
            )
        seen: set[str] = set()
        for data in self.lines(point):
            if data["id"] not in seen:
                seen.add(data["id"])
                yield Saved(data["id"], _held(data["was"]), data["now"])

    def ids(self, point: Point) -> Iterator[str]:
        """The ids that an operation changed."""
        return (data["id"] for data in self.lines(point))

    def lines(self, point: Point) -> Iterator[dict[str, Any]]:
        """What is kept of each change: `id`, and `was` and `now` as in `Saved`, if not removed.

        `was` is the JSON form of a memory, the time of a tombstone or None.
        """
        path = self.changes(point.id)
        with (
            self.explained(),
            suppress(FileNotFoundError),
            naming(path),
            open_own(path, "rb") as file,
        ):
            for line in file:
                if line.endswith(b"\n"):  # else it was killed before it changed anything
                    yield orjson.loads(line)

    def size(self, point: Point) -> int:
        """Bytes of what is kept of an operation."""
        with suppress(OSError):
            return self.changes(point.id).stat().st_size
        return 0

    def changes(self, name: str) -> Path:
        """The file with what was there before."""
        return self.folder / name / "changes.jsonl"

    def save(self, about: Point) -> None:
        """Write the description of an operation to the disk."""
        path = self.folder / about.id / "point.json"
        with self.explained():
            make_private(path.parent)
            write_atomically(path, about.model_dump_json(indent=1).encode())

    def empty_old(self) -> None:
        """Remove the contents of all but the newest restore points; their ids stay."""
        # What a session of remembering saves is only ids.
        saved = [point for point in self.all() if point.operation not in {SESSION, REPAIR}]
        for point in saved[self.keep :]:
            has_contents = "was" in next(self.lines(point), {})
            # A kept collection is removed by the operation that keeps the next one.
            if point.kept or (point.emptied and not has_contents):
                continue
            point.emptied = True  # first: from here on the contents may be missing
            self.save(point)
            ids = (orjson.dumps({"id": i}) + b"\n" for i in self.ids(point))
            with self.explained():
                write_atomically(self.changes(point.id), ids)


@contextmanager
def after_changes(name: str) -> Iterator[None]:
    """For what is recorded after all changes of an operation: a failure says that they were made.

    Args:
        name: the restore point of the operation.
    """
    try:
        yield
    except TribalError as error:
        raise error.extended(
            "All changes of the operation had been made.",
            NextStep("To undo them, run {call}.", "undo", {"point": name}),
        ) from error


def _try_lock(lock: FileLock) -> bool:
    """Acquire the lock if it is free; whether it was."""
    with explained(Path(lock.lock_file).parents[3]):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
    return True


def time_of(name: str) -> datetime:
    """When the operation with this restore point began.

    Raises:
        ValueError: it is no name of a restore point.
    """
    return datetime.strptime(name, _NAME).replace(tzinfo=UTC)


def stamp(held: Held) -> int | None:
    """When a memory last changed, or when a tombstone was written, in microseconds UTC."""
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


def _cut_incomplete_line(path: Path) -> None:
    if not path.exists():
        return
    with naming(path), open_own(path, "r+b") as file:
        complete = sum(len(line) for line in file if line.endswith(b"\n"))
        file.truncate(complete)
