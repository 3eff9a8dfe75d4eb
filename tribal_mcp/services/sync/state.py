"""What a store knows of a shared folder: a SQLite file among this program's own files.

For each memory it has the heads, and the digest of what the store held after the last sync; a local
change is what differs from it. It also has the files that were read and written. Losing it costs
nothing but time: the next sync is a first contact. (Over 300 lines: one class for one database.)
"""

import secrets
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tribal_mcp.errors import StoreError
from tribal_mcp.files.atomic import make_private
from tribal_mcp.files.replica_folders import ID_BYTES, ReplicaFile
from tribal_mcp.portability.limits import NO_LIMITS
from tribal_mcp.portability.replication.compaction import Cut, Report, beginning, number_of
from tribal_mcp.portability.replication.reconcile import Known
from tribal_mcp.portability.replication.records import (
    OPERATION_BYTES,
    ORIGIN,
    PREVIOUS,
    Operation,
    read_record,
)
from tribal_mcp.portability.replication.versions import Heads, Stamp, join
from tribal_mcp.stores.base import BATCH

FOLDER = "sync"
_VERSION = 6
_CACHE_KIB = 32 * 1024
"""Memory for the pages of the database, which are in no order when files are assigned."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS memories (id TEXT PRIMARY KEY, shown TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heads (id TEXT, stamp TEXT, line BLOB, file TEXT,
    PRIMARY KEY (id, stamp)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS heads_of_files ON heads (file);
CREATE INDEX IF NOT EXISTS heads_of_memories ON heads (id);
CREATE TABLE IF NOT EXISTS intended (id TEXT PRIMARY KEY, shown TEXT, heads BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, replica TEXT, number INT, size INT,
    modified_ns INT, records INT, missing_since INT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS written (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rewritten (id TEXT, stamp TEXT, path TEXT, PRIMARY KEY (id, stamp))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replicas (id TEXT PRIMARY KEY, name TEXT, number INT, files TEXT)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS operations (id TEXT PRIMARY KEY, what TEXT, source TEXT, machine TEXT)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS received (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outdated (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reports (replica TEXT PRIMARY KEY, report TEXT, days INT) WITHOUT ROWID;
INSERT OR IGNORE INTO reports SELECT id, '{}', 0 FROM replicas;
DELETE FROM files WHERE (replica, number) IN (SELECT id, number FROM replicas);
"""

Line = tuple[bytes, str]
"""A version as it is kept: its line, and the file that has it; "" if none has it yet."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of a memory, and what a sync that was killed intended; with the lines.

    `received` is whether other machines shared it before this one did.
    """

    known: Known
    intended: Known | None = None
    lines: Mapping[Stamp, Line] = field(default_factory=dict)
    received: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """A file that was read, or written here."""

    file: ReplicaFile
    records: int
    missing_since: int | None


class Unpublished(NamedTuple):
    """A head that is in no file.

    Attributes:
        id: of its memory.
        stamp: names the version.
        line: the version.
        shown: the digest of what the store held after the last sync.
    """

    id: str
    stamp: str
    line: bytes
    shown: str

    @property
    def is_shown(self) -> bool:
        """Whether the store held this version."""
        return bool(self.shown) and Stamp.read(self.stamp).digest == self.shown


class SyncState:
    """The state of one store for one shared folder.

    Args:
        path: the SQLite file; created if it is missing.
        dry_run: what is changed is not kept.

    Raises:
        StoreError: a later version of this program wrote it.
    """

    def __init__(self, path: Path, *, dry_run: bool = False) -> None:
        self.path = path
        if not dry_run:
            make_private(path.parent)
        known = path.exists()
        self._sql = sqlite3.connect(
            path if known or not dry_run else ":memory:",
            isolation_level=None,
            check_same_thread=False,
        )
        self._dry_run = dry_run
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        self.is_new = not self["replica"]
        if self.is_new:
            self["replica"], self["behind"] = new_id(), "1"

    def _begin(self) -> None:
        self._sql.execute("PRAGMA synchronous = FULL")
        self._sql.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        if self._dry_run:
            self._sql.execute("BEGIN")
        with self.transaction():
            version = self._sql.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise StoreError(
                    f"A later version of this program wrote {str(self.path)!r:.300}, which has "
                    "what this store knows of the shared folder. Nothing was changed. Update this "
                    "program."
                )
            if version < _VERSION:
                # The newest file of each replica is read again: an earlier version kept no report.
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._sql.execute(statement)
                self._sql.execute(f"PRAGMA user_version = {_VERSION}")
        self._about = self._read_about()

    def close(self) -> None:
        """Close the file."""
        if self._sql.in_transaction:
            self._sql.execute("ROLLBACK")
        self._sql.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is changed in the block is kept whole or not at all."""
        if self._dry_run:
            yield
            return
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._sql.in_transaction:  # a full disk ends it
                self._sql.execute("ROLLBACK")
            self._about = self._read_about()
            raise
        self._sql.execute("COMMIT")

    def _read_about(self) -> dict[str, str]:
        return dict(self._sql.execute("SELECT key, value FROM about"))

    def __getitem__(self, key: str) -> str:
        return self._about.get(key, "")

    def __setitem__(self, key: str, value: str) -> None:
        if self[key] == value:
            return  # nothing to sync to the disk
        self._sql.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))
        self._about[key] = value

    @property
    def tags(self) -> list[str]:
        """Only memories with one of these are shared; all if there are none."""
        tags: list[str] = orjson.loads(self["tags"] or "[]")
        return tags

    @tags.setter
    def tags(self, tags: Sequence[str]) -> None:
        self["tags"] = orjson.dumps(tags).decode()

    def forget_unpublished(self) -> None:
        """Forget what was made here of memories that were never published from here.

        The versions of others are read again.
        """
        which = "GROUP BY id HAVING max(file) = ''" if self.has_written() else "WHERE file = ''"
        unpublished = f"(SELECT id FROM heads {which})"  # noqa: S608 - our own
        for what in (
            "files WHERE path IN (SELECT file FROM heads WHERE id IN {})",
            "memories WHERE id IN {}",
            "intended WHERE id IN {}",
            "heads WHERE id IN {}",
        ):
            self._sql.execute(f"DELETE FROM {what.format(unpublished)}")  # noqa: S608 - our own

    # Memories.

    def shown(self) -> dict[str, str]:
        """The digest of what the store held of each memory that it held after the last sync."""
        return dict(self._sql.execute("SELECT id, shown FROM memories WHERE shown != ''"))

    def hidden(self) -> set[str]:
        """The memories that others share, but the store kept its own under their ids, or none."""
        query = "SELECT id FROM memories JOIN heads USING (id) WHERE shown = '' "
        rows = self._sql.execute(query + """AND instr(line, '"memory"')""")
        return {row[0] for row in rows}

    def interrupted(self) -> list[str]:
        """The memories that a killed sync may have changed."""
        return [row[0] for row in self._sql.execute("SELECT id FROM intended")]

    def rows(self, ids: Collection[str]) -> dict[str, Row]:
        """What is known of those memories."""
        wanted = list(ids)
        shown = dict(self._select("SELECT id, shown FROM memories", wanted))
        lines: dict[str, dict[Stamp, Line]] = {i: {} for i in ids}
        heads: dict[str, Heads] = {}
        for memory_id, stamp, line, file in self._select("SELECT * FROM heads", wanted):
            lines[memory_id][Stamp.read(stamp)] = line, file
            version = read_record(line, NO_LIMITS, trusted=True).version
            heads[memory_id] = (*heads.get(memory_id, ()), version)
        intended: dict[str, Known] = {}
        for memory_id, digest, data in self._select("SELECT * FROM intended", wanted):
            kept = [(line.encode(), file) for line, file in orjson.loads(data)]
            versions = [read_record(line, NO_LIMITS, trusted=True).version for line, _ in kept]
            lines[memory_id] |= dict(zip((v.stamp for v in versions), kept, strict=True))
            intended[memory_id] = Known(join(versions), digest)
        received = dict(self._select("SELECT id, 1 FROM received", wanted))
        return {
            i: Row(
                Known(join(heads.get(i, ())), shown.get(i, "")),
                intended.get(i),
                lines[i],
                i in received,
            )
            for i in ids
        }

    def note_received(self, ids: Iterable[str]) -> None:
        """Record that other machines shared those memories before this one did."""
        self._sql.executemany("INSERT OR IGNORE INTO received VALUES (?)", [(i,) for i in ids])

    def _select(self, query: str, ids: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            # Not by json_each, which ends an id at a zero character.
            where = f"{query} WHERE id IN ({', '.join('?' * len(part))})"
            yield from self._sql.execute(where, part).fetchall()

    def save(self, known: Mapping[str, tuple[Known, Mapping[Stamp, Line]]]) -> None:
        """Record what is known of memories, with the lines; nothing is intended any more."""
        ids = [(memory_id,) for memory_id in known]
        self._sql.executemany("DELETE FROM heads WHERE id = ?", ids)
        self._sql.executemany(
            "INSERT INTO heads VALUES (?, ?, ?, ?)",
            [
                (memory_id, str(head.stamp), *lines[head.stamp])
                for memory_id, (one, lines) in known.items()
                for head in one.heads
            ],
        )
        shown = [(memory_id, one.shown) for memory_id, (one, _) in known.items()]
        self._sql.executemany("INSERT OR REPLACE INTO memories VALUES (?, ?)", shown)
        self._sql.executemany("DELETE FROM intended WHERE id = ?", ids)

    def intend(self, memory_id: str, known: Known, lines: Mapping[Stamp, Line]) -> None:
        """Record what will be known of a memory once the store is changed."""
        kept = [[lines[head.stamp][0].decode(), lines[head.stamp][1]] for head in known.heads]
        row = (memory_id, known.shown, orjson.dumps(kept))
        self._sql.execute("INSERT OR REPLACE INTO intended VALUES (?, ?, ?)", row)

    def conflicting(self) -> list[str]:
        """The memories with several heads, in the order of their ids."""
        rows = self._sql.execute("SELECT id FROM heads GROUP BY id HAVING count(*) > 1 ORDER BY id")
        return [row[0] for row in rows]

    def in_other_files(self, paths: Iterable[str]) -> list[str]:
        """The memories with a version that is in a file, but in none of those."""
        wanted = orjson.dumps(list(paths)).decode()
        query = (
            "SELECT DISTINCT id FROM heads WHERE file != '' "
            "AND file NOT IN (SELECT value FROM json_each(?))"
        )
        return [row[0] for row in self._sql.execute(query, (wanted,))]

    def holders(self) -> list[str]:
        """The files that have a version."""
        rows = self._sql.execute("SELECT DISTINCT file FROM heads WHERE file != ''")
        return [row[0] for row in rows]

    def to_compact(self, path: str) -> list[tuple[str, bytes]]:
        """The only versions of memories, in a file, that are deletions or name ancestors."""
        rows = self._sql.execute(
            "SELECT id, line FROM heads WHERE file = ? AND id NOT IN (SELECT id FROM intended) "
            """AND (instr(line, '"ancestors"') OR NOT instr(line, '"memory"')) """
            "AND (SELECT count(*) FROM heads AS all_heads WHERE all_heads.id = heads.id) = 1",
            (path,),
        )
        return rows.fetchall()

    def compact(self, memory_id: str, line: bytes, path: str | None) -> None:
        """Record another form of the only version of a memory, and its file, unless that stays."""
        row = (line, path, memory_id)
        self._sql.execute("UPDATE heads SET line = ?, file = ifnull(?, file) WHERE id = ?", row)

    def drop(self, ids: Iterable[str]) -> None:
        """Forget memories whose deletion is known everywhere."""
        rows = [(memory_id,) for memory_id in ids]
        for table in ("heads", "memories", "received"):
            self._sql.executemany(f"DELETE FROM {table} WHERE id = ?", rows)  # noqa: S608

    def deletions_beside(self, paths: Iterable[str]) -> list[str]:
        """The memories with a deletion in one of those files, and another head."""
        rows = self._sql.execute(
            "SELECT id FROM heads WHERE file IN (SELECT value FROM json_each(?)) "
            """AND NOT instr(line, '"memory"') AND """
            "(SELECT count(*) FROM heads AS all_heads WHERE all_heads.id = heads.id) > 1",
            (orjson.dumps(list(paths)).decode(),),
        )
        return [row[0] for row in rows]

    def deleted_often(self) -> list[str]:
        """The memories with several heads, all of which are deletions."""
        rows = self._sql.execute(
            "SELECT id FROM heads WHERE id NOT IN (SELECT id FROM intended) AND id IN "
            "(SELECT id FROM heads GROUP BY id HAVING count(*) > 1) "
            """GROUP BY id HAVING NOT max(instr(line, '"memory"'))"""
        )
        return [row[0] for row in rows]

    # Files.

    def cut(self) -> Cut:
        """What is known of all files."""
        own = self["replica"]
        read = {
            row[0]
            for row in self._sql.execute(
                "SELECT path FROM files UNION SELECT path FROM written "
                "UNION SELECT path FROM outdated"
            )
        }
        numbers = Counter(path.partition("-")[0] for path in read)
        reports, removed = self.reports(), self.removed
        return Cut(
            own,
            reports.get(own, Report()),
            {i: reports.get(i, Report()) for i in self.names() if i not in removed},
            removed,
            self.files().keys(),
            read,
            {path.partition("/")[0] for path, count in numbers.items() if count > 1},
        )

    def files(self) -> dict[str, Applied]:
        """The files that were read or written and still count, by path."""
        found = {}
        rows = self._sql.execute("SELECT * FROM files")
        for path, replica, number, size, modified_ns, records, missing in rows:
            file = ReplicaFile(replica, number, path.partition("/")[2], size, modified_ns)
            found[path] = Applied(file, records, missing)
        return found

    def add_file(self, file: ReplicaFile, records: int) -> None:
        """Record that a file was read, or is about to be published."""
        self._sql.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, NULL)",
            (file.path, file.replica, file.number, file.size, file.modified_ns, records),
        )

    def note_written(self, path: str) -> None:
        """Record that this program has written a file under its own id."""
        self._sql.execute("INSERT OR IGNORE INTO written VALUES (?)", (path,))

    def has_written(self, path: str = "") -> bool:
        """Whether this program has ever written that file, or any."""
        query = "SELECT 1 FROM written WHERE ? IN ('', path)"
        return bool(self._sql.execute(query, (path,)).fetchone())

    def written_last(self) -> list[str]:
        """The beginnings of the names of the last files that this replica wrote."""
        query = "SELECT path FROM written WHERE path GLOB ? ORDER BY path DESC LIMIT ?"
        rows = self._sql.execute(query, (f"{self['replica']}/*", PREVIOUS))
        return [beginning(path.partition("/")[2]) for (path,) in rows]

    def last_written_of(self, names: Iterable[str]) -> int:
        """The number of the last of those files that this replica wrote; 0 if it wrote none."""
        rows = self._sql.execute(
            "SELECT path FROM written WHERE path GLOB ?", (f"{self['replica']}/*",)
        )
        written = {beginning(path.partition("/")[2]) for (path,) in rows}
        return max(map(number_of, written.intersection(map(beginning, names))), default=0)

    def note_outdated(self, paths: Iterable[str]) -> None:
        """Record files that were read, and that their replicas have replaced since."""
        self._sql.executemany("INSERT OR IGNORE INTO outdated VALUES (?)", [(p,) for p in paths])

    def outdated(self, paths: Iterable[str]) -> list[str]:
        """Those of the files."""
        wanted = orjson.dumps(list(paths)).decode()
        query = "SELECT path FROM outdated WHERE path IN (SELECT value FROM json_each(?))"
        return [row[0] for row in self._sql.execute(query, (wanted,))]

    def note_missing(self, path: str, since: int | None) -> None:
        """Record since when a file is missing, in seconds since 1970, or that it is not."""
        self._sql.execute("UPDATE files SET missing_since = ? WHERE path = ?", (since, path))

    def forget_files(self, paths: Iterable[str]) -> None:
        """Forget files that don't count any more."""
        self._sql.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in paths])

    def publish_again(self, paths: Iterable[str]) -> int:
        """The heads that those files have are to be published again; returns how many."""
        return sum(
            self._sql.execute("UPDATE heads SET file = '' WHERE file = ?", (path,)).rowcount
            for path in paths
        )

    def write_again(self, paths: Iterable[str]) -> None:
        """Have the heads of own files published in new ones; note which file had each first."""
        paths = list(paths)
        self._sql.execute(
            "DELETE FROM rewritten WHERE (id, stamp) NOT IN (SELECT id, stamp FROM heads)"
        )
        self._sql.execute(
            "INSERT OR IGNORE INTO rewritten SELECT id, stamp, file FROM heads "
            "WHERE file IN (SELECT value FROM json_each(?))",
            (orjson.dumps(paths).decode(),),
        )
        self.publish_again(paths)

    def back_to_first_files(self, replica: str, number: int) -> None:
        """Take the heads that this replica first published in a file up to that one as in it."""
        rows = self._sql.execute("SELECT path, id, stamp FROM rewritten").fetchall()
        self._sql.executemany(
            "UPDATE heads SET file = ? WHERE id = ? AND stamp = ? AND (file = '' OR file GLOB ?)",
            [
                (*row, f"{replica}/*")
                for row in rows
                if number_of(row[0].partition("/")[2]) <= number
            ],
        )
        self._sql.execute("DELETE FROM rewritten")

    def unpublished(self, after: tuple[str, str], most: int) -> list[Unpublished]:
        """The next heads that are in no file, by their ids and stamps.

        Args:
            after: the id and the stamp of the last one; both are empty for the first.
            most: how many at most.
        """
        rows = self._sql.execute(
            "SELECT id, stamp, line, ifnull(shown, '') FROM heads LEFT JOIN memories USING (id) "
            "WHERE file = '' AND (id, stamp) > (?, ?) ORDER BY id, stamp LIMIT ?",
            (*after, most),
        )
        return [Unpublished(*row) for row in rows]

    def unpublished_ids(self) -> set[str]:
        """The memories with a head that is in no file."""
        return {row[0] for row in self._sql.execute("SELECT id FROM heads WHERE file = ''")}

    def assign(self, heads: Iterable[tuple[str, str]], path: str) -> None:
        """Record that a file has those heads, each given as an id and a stamp."""
        self._sql.executemany(
            "UPDATE heads SET file = ? WHERE id = ? AND stamp = ?",
            [(path, memory_id, stamp) for memory_id, stamp in heads],
        )

    def live(self, paths: Iterable[str]) -> int:
        """How many heads those files have."""
        return sum(
            self._sql.execute("SELECT count(*) FROM heads WHERE file = ?", (path,)).fetchone()[0]
            for path in paths
        )

    # Operations.

    def operations(self) -> dict[str, Operation]:
        """The operations that made versions, by their restore points, the oldest first."""
        rows = self._sql.execute("SELECT * FROM operations ORDER BY id")
        return {point: Operation(*about) for point, *about in rows}

    def note_operations(self, operations: Mapping[str, Operation]) -> None:
        """Record operations; what is known of one stays."""
        rows = [(point, *about) for point, about in operations.items()]
        self._sql.executemany("INSERT OR IGNORE INTO operations VALUES (?, ?, ?, ?)", rows)

    def made_by(self, operation: str) -> list[str]:
        """The memories of which an operation made a head."""
        begin = ORIGIN + operation.encode()
        rows = self._sql.execute("SELECT DISTINCT id FROM heads WHERE instr(line, ?)", (begin,))
        return [row[0] for row in rows]

    def counts(self) -> dict[str, int]:
        """How many heads each operation made."""
        rows = self._sql.execute(
            "SELECT substr(line, instr(line, :mark) + :skip, :bytes) AS made, count(*) FROM heads "
            "WHERE instr(line, :mark) GROUP BY made",
            {"mark": ORIGIN, "skip": len(ORIGIN), "bytes": OPERATION_BYTES},
        )
        return {bytes(made).decode(errors="replace"): count for made, count in rows}

    # Replicas.

    def names(self) -> dict[str, str]:
        """What people call the other replicas, by id."""
        return dict(self._sql.execute("SELECT id, name FROM replicas ORDER BY name"))

    def reports(self) -> dict[str, Report]:
        """What the newest file of each replica says, with this one's."""
        rows = self._sql.execute("SELECT replica, report FROM reports")
        return {replica: Report(**orjson.loads(report)) for replica, report in rows}

    def note_report(self, replica: str, report: Report) -> None:
        """Record what the newest file of a replica says."""
        row = (replica, orjson.dumps(report))
        self._sql.execute("INSERT OR REPLACE INTO reports VALUES (?, ?, 0)", row)

    def quiet_days(self) -> dict[str, int]:
        """By replica, on how many days this one has synced since it heard of that."""
        return dict(self._sql.execute("SELECT replica, days FROM reports"))

    def absent(self, today: str, days: int) -> list[str]:
        """The other replicas without a new file on that many days on which this one synced."""
        if self["day"] != today:
            self["day"] = today
            self._sql.execute("UPDATE reports SET days = days + 1")
        rows = self._sql.execute("SELECT replica FROM reports WHERE days >= ?", (days,))
        own = {self["replica"], *self.removed}
        return [row[0] for row in rows if row[0] not in own]

    @property
    def removed(self) -> dict[str, int]:
        """The replicas that count no longer, each with the number of its last file that does."""
        removed: dict[str, int] = orjson.loads(self["removed"] or "{}")
        return removed

    def remove(self, last: Mapping[str, int]) -> None:
        """Record that replicas count no longer, each with the number of its last file that does."""
        self["removed"] = orjson.dumps({**self.removed, **last}).decode()

    def note_name(self, replica: str, name: str) -> None:
        """Record what people call a replica."""
        row = (replica, name)
        self._sql.execute("INSERT OR REPLACE INTO replicas (id, name) VALUES (?, ?)", row)


def new_id() -> str:
    """An id for a new replica."""
    return secrets.token_hex(ID_BYTES)
