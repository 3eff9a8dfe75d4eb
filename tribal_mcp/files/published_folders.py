"""Folders that an export writes: changed in place, and only where something changed.

Every new or changed file is first written to a hidden folder inside, `.tribal-mcp`, and synced.
Only then is each renamed to its place, and what is no longer exported is deleted last. A list of
the folder's files, kept there too, says which are ours. It is written before the first rename,
under another name: after a kill or a power cut every file is whole, old or new, and the next export
knows both and completes the work. Files that are not in the list are never replaced or deleted.
(Over 300 lines: one object decides about each file and then carries that out.)
"""

import fcntl
import hashlib
import os
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from tribal_mcp.errors import PathNotAllowed, UsageError
from tribal_mcp.files.directory import explaining
from tribal_mcp.files.tree import Tree
from tribal_mcp.next_steps import NextStep
from tribal_mcp.text import counted

MARK = ".tribal-mcp"
"""The hidden folder in each folder that an export wrote."""
LIST = f"{MARK}/files"
"""The list of its files."""

_NEXT, _STAGED = f"{MARK}/next", f"{MARK}/staged"
_HEAD = re.compile(r"# tribal-mcp export, format 1: ([\w-]+)\n")
_LINE = re.compile(r"(.+?)  (.+)")
NEIGHBOURS = re.compile(
    r"\.git.*|\.editorconfig|\.DS_Store|(?:readme|licen[cs]e)(?:\..*)?", re.IGNORECASE
)
"""What may stand in a folder before the first export, and is no part of it."""
_FOR_GIT = {
    f"{MARK}/.gitattributes": b"files merge=union\n",
    f"{MARK}/.gitignore": b"/next\n/staged/\n",
}
_FEW = 500
"""Above this number, files are not synced one by one: the system syncs all that it has."""
_EXAMPLES = 5
_DRY_RUN = {"input_path": ..., "dry_run": True}
_LARGE = 10
_LINE_BYTES = 1 << 14
_PART = "It was updated in part. Repeat the export to complete it."


@dataclass(frozen=True, slots=True)
class FolderKind:
    """How to tell what the files of an exported folder are.

    Attributes:
        name: of the format.
        key: what of a file's path stays the same while the memory changes. A file keeps its path
            as long as one with its key is exported.
        owner: the key of a file that is not in the list, by path and content, if it holds a memory
            all the same: one that was moved or added; else None.
        is_known: whether nothing in a file (path, content) is lost if it is replaced by this
            content, or deleted (None). By default, whether it is as the last export wrote it,
            which the list then records.
        stays_listed: whether the list goes on to name a file with this key that is deleted: by
            that, others learn of the deletion.
        once: the files that are written if they are missing, and then belong to the user.
    """

    name: str
    key: Callable[[str], str] = lambda path: path
    owner: Callable[[str, bytes], str | None] = lambda _path, _content: None
    is_known: Callable[[str, bytes, bytes | None], bool] | None = None
    stays_listed: Callable[[str], bool] = lambda _key: False
    once: Collection[str] = ()


@dataclass(slots=True)
class Published:
    """What an export did to a folder.

    Attributes:
        files: number of files that it wrote or would have written the same.
        written: how many of them are new or changed.
        restored: how many of those somebody had deleted since the last export.
        removed: number of files that it deleted.
        others: number of files that are not ours, and were left alone.
        bytes: size of all files of the export.
    """

    files: int = 0
    written: int = 0
    restored: int = 0
    removed: int = 0
    others: int = 0
    bytes: int = 0


def publish_into(
    descriptor: int,
    shown: str,
    kind: FolderKind,
    files: Iterable[tuple[str, bytes]],
    *,
    overwrite: bool = False,
    allow_smaller: bool = False,
) -> Published:
    """Make a folder hold these files.

    Args:
        descriptor: the folder, open.
        shown: its path, for messages.
        kind: how to tell what its files are.
        files: the relative path of each, with `/`, and its content.
        overwrite: also replace and delete files of ours that hold something unknown, as edits.
        allow_smaller: also replace an export that had many more files.

    Raises:
        PathNotAllowed: it holds files and was not written by an export, or not in this format.
        UsageError: files hold something unknown, or there would be many fewer.
    """
    with closing(Tree(descriptor)) as tree, closing(_temporary()) as db:
        with explaining(shown):
            update = _Update(tree, shown, kind, db)
            update.begin()
        with update.locked():
            with explaining(shown):
                tree.remove_all(_STAGED)
                update.load()
            try:
                update.stage(files)
                with explaining(shown):
                    update.look_at_rest()
                    update.refuse(overwrite=overwrite, allow_smaller=allow_smaller)
            except BaseException:
                with suppress(OSError):
                    tree.remove_all(_STAGED)
                    tree.remove_empty(MARK)
                raise
            with explaining(shown, _PART):
                update.carry_out()
    return update.done


@dataclass(slots=True)
class _Update:
    """One export into a folder.

    Of each file in `_db`: path, key, whether it is in the list of the last export, the hash there,
    the hash of this or an unfinished export, the state, and the number under which it is staged.
    The states: 0 to delete, 1 exported, 2 not ours, 3 deleted before and still to be listed, 4 to
    delete and still to be listed.
    """

    tree: Tree
    shown: str
    kind: FolderKind
    _db: sqlite3.Connection
    done: Published = field(default_factory=Published)
    _deletions: int = 0
    _edited: list[str] = field(default_factory=list)
    _edited_count: int = 0
    _staged: int = 0

    def begin(self) -> None:
        """Check that the folder is ours, or make it ours if nothing in it could be harmed."""
        try:
            self.tree.folder((MARK,))
        except FileNotFoundError:
            others = [name for name in sorted(self.tree.names()) if not NEIGHBOURS.fullmatch(name)]
            if others:
                some = ", ".join(f"{name!r:.80}" for name in others[:_EXAMPLES])
                more = ", …" if len(others) > _EXAMPLES else ""
                raise PathNotAllowed(
                    f"{self.shown} was not written by an export, and holds {some}{more}. Nothing "
                    "was changed. Export to a new folder, for example one inside it."
                ) from None
            self.tree.folder((MARK,), create=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other exports out of the folder."""
        lock = self.tree.reopened(MARK)
        try:
            with suppress(OSError):  # not every file system has locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def load(self) -> None:
        """Read the lists, and find the owners of files that are not in them."""
        for name, column in ((LIST, "hash"), (_NEXT, "next_hash")):
            for path, said in self._listed(name):
                key, digest = (said, "") if self.kind.is_known else (self.kind.key(path), said)
                self._db.execute(
                    f"INSERT INTO file (path, key, listed, {column}) VALUES (?, ?, ?, ?) "  # noqa: S608 - ours
                    f"ON CONFLICT DO UPDATE SET {column} = excluded.{column}",
                    (path, key, name == LIST, digest),
                )
        for path in self.tree.files():
            if not self._row(path):
                self._load_other(path)

    def _load_other(self, path: str) -> None:
        """Find whose a file is that is not in the lists."""
        if NEIGHBOURS.fullmatch(path) or path in self.kind.once:
            return
        content = None
        with suppress(OSError):
            content = self.tree.read(path)
        key = None if content is None else self.kind.owner(path, content)
        if key is None or self._present(key):
            self.done.others += 1
        else:
            self._db.execute("DELETE FROM file WHERE key = ?", (key,))
            self._db.execute("INSERT INTO file (path, key, state) VALUES (?, ?, 0)", (path, key))

    def _listed(self, name: str) -> Iterator[tuple[str, str]]:
        """The files in a list, if it exists."""
        file = self.tree.open(name)
        if file is None:
            return
        try:
            with file:
                yield from listed(file, self.kind.name)
        except ValueError as error:
            raise PathNotAllowed(
                f"{self.shown} holds an export in {error}. Nothing was changed. Export to another "
                "folder."
            ) from None

    def _row(self, path: str) -> tuple[int, str, str] | None:
        found = self._db.execute("SELECT listed, hash, next_hash FROM file WHERE path = ?", (path,))
        row: tuple[int, str, str] | None = found.fetchone()
        return row

    def _present(self, key: str) -> bool:
        """Whether a file that is known under this key exists."""
        for (path,) in self._db.execute("SELECT path FROM file WHERE key = ?", (key,)).fetchall():
            if self.tree.exists(path):
                return True
        return False

    def stage(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Decide about each file, and write those that are new or changed to the hidden folder."""
        for suggested, content in files:
            key = self.kind.key(suggested)
            with explaining(self.shown):
                self._stage(self._path(suggested, key), key, content)

    def _path(self, suggested: str, key: str) -> str:
        """The path that the file has already, or the suggested one."""
        if key == suggested:
            return suggested
        known = self._db.execute("SELECT path FROM file WHERE key = ? AND state = 0", (key,))
        row = known.fetchone()
        return row[0] if row else suggested

    def _stage(self, path: str, key: str, content: bytes) -> None:
        if not _is_inside(path):
            raise UsageError(f"{path!r:.80} is no path of a file within a folder.")
        row = self._row(path)
        here = self.tree.read(path)
        digest = "" if self.kind.is_known else hashlib.sha256(content).hexdigest()
        self.done.files += 1
        self.done.bytes += len(content)
        staged = None
        if here != content and not (here is not None and path in self.kind.once):
            if here is not None and row is None:
                raise PathNotAllowed(
                    f"{path!r:.80} in {self.shown} was not written by an export, and a file of the "
                    "export has the same name. Nothing was changed. Rename it."
                )
            if here is not None and not self._is_known(path, here, content):
                self._note_edited(path)
            self.done.restored += here is None and row is not None and row[0] == 1
            staged = self._staged
            self.tree.write(_staged(staged), [content], sync=False)
            self._staged += 1
        changed = self._db.execute(
            "INSERT INTO file (path, key, next_hash, state, staged) VALUES (?, ?, ?, 1, ?) ON "
            "CONFLICT DO UPDATE SET next_hash = excluded.next_hash, state = 1, "
            "staged = excluded.staged WHERE state = 0",
            (path, key, digest, staged),
        ).rowcount
        if not changed:
            raise UsageError(f"Two files of the export have the name {path!r:.80}.")

    def _is_known(self, path: str, here: bytes, new: bytes | None) -> bool:
        if self.kind.is_known:
            return self.kind.is_known(path, here, new)
        row = self._row(path)
        return row is not None and hashlib.sha256(here).hexdigest() in row[1:]

    def _note_edited(self, path: str) -> None:
        self._edited_count += 1
        if len(self._edited) < _EXAMPLES:
            self._edited.append(path)

    def look_at_rest(self) -> None:
        """Find the files of the last export that this one does not have."""
        rest = self._db.execute("SELECT path, key, listed FROM file WHERE state = 0 ORDER BY path")
        for path, key, is_listed in rest.fetchall():
            here = self.tree.read(path)
            is_lost = here is not None and not self._is_known(path, here, None)
            if is_lost and is_listed is None:
                self._set_state(path, 2)
                self.done.others += 1
                continue
            if is_lost:
                self._note_edited(path)
            self._deletions += here is not None
            if self.kind.stays_listed(key):
                self._set_state(path, 3 if here is None else 4)

    def _set_state(self, path: str, state: int) -> None:
        self._db.execute("UPDATE file SET state = ? WHERE path = ?", (state, path))

    def refuse(self, *, overwrite: bool, allow_smaller: bool) -> None:
        """Refuse to lose edits or most of the memories."""
        kept = self.done.files
        if self._deletions > max(kept, _LARGE) and not allow_smaller:
            raise UsageError(
                f"{counted(self._deletions, 'file')} in {self.shown} would be deleted, and "
                f"{kept:,} stay. Nothing was changed. Check that this is the right store, or "
                "choose another folder.",
                NextStep(
                    "To replace it with a smaller one, run {call}.",
                    "export",
                    {"output_path": ..., "allow_smaller": True},
                ),
            )
        if self._edited and not overwrite:
            some = ", ".join(f"{path!r:.80}" for path in self._edited)
            more = ", …" if self._edited_count > len(self._edited) else ""
            hold = counted(self._edited_count, "file holds", "files hold")
            raise UsageError(
                f"{hold} something that this store does not have, such as an edit: {some}{more} in "
                f"{self.shown}. Nothing was changed. Import the folder first, to keep it, or allow "
                "overwriting, to discard it.",
                NextStep("To see what an import would change, run {call}.", "import", _DRY_RUN),
            )

    def carry_out(self) -> None:
        """Sync what was written to the hidden folder, and give each file its name."""
        self._db.execute("COMMIT")
        self.done.written = self._staged
        self._sync_staged()
        for path, content in _FOR_GIT.items():
            if self.tree.read(path) is None:
                self.tree.write(path, [content], sync=True)
        news = self._db.execute(
            "SELECT 1 FROM file WHERE state IN (0, 4) OR (state = 1 AND listed IS NOT 1) LIMIT 1"
        )
        if not self._staged and not news.fetchone() and not self.tree.exists(_NEXT):
            return
        self.tree.write(_NEXT, self._lines(), sync=True)
        self.tree.sync([(MARK,)])
        folders = self._rename()
        rest = self._db.execute("SELECT path FROM file WHERE state IN (0, 4) ORDER BY path")
        for (path,) in rest:
            with suppress(FileNotFoundError):
                self.tree.unlink(path)
                self.done.removed += 1
                folders.add(tuple(path.split("/"))[:-1])
        self._sync_folders(folders)
        self.tree.rename(_NEXT, LIST)
        self.tree.sync([(MARK,)])

    def _sync_staged(self) -> None:
        if self._staged > _FEW:
            os.sync()
            return
        for number in range(self._staged):
            self.tree.sync_file(_staged(number))

    def _lines(self) -> Iterator[bytes]:
        yield f"# tribal-mcp export, format 1: {self.kind.name}\n".encode()
        said = "key" if self.kind.is_known else "next_hash"
        query = f"SELECT {said}, path FROM file WHERE state IN (1, 3, 4) ORDER BY path"  # noqa: S608 - ours
        for line in self._db.execute(query):
            yield f"{'  '.join(line)}\n".encode()

    def _rename(self) -> set[tuple[str, ...]]:
        """Give the files their names; the folders that changed."""
        folders: set[tuple[str, ...]] = {()}
        found = self._db.execute("SELECT path, staged FROM file WHERE staged IS NOT NULL")
        for path, number in found:
            self.tree.rename(_staged(number), path)
            parts = tuple(path.split("/"))[:-1]
            folders.update(parts[:length] for length in range(1, len(parts) + 1))
        self.tree.remove_all(_STAGED)
        return folders

    def _sync_folders(self, folders: set[tuple[str, ...]]) -> None:
        if len(folders) > _FEW:
            os.sync()
        else:
            self.tree.sync(folders)


def listed(file: BinaryIO, name: str) -> Iterator[tuple[str, str]]:
    """The files in the list of a folder.

    Args:
        file: the list.
        name: of the format.

    Yields:
        The path of each, and its key, or its hash if the format has no keys.

    Raises:
        ValueError: the export was in another format, which the message names.
    """
    head = _HEAD.fullmatch(file.readline(_LINE_BYTES).decode(errors="replace"))
    if not head or head[1] != name:
        raise ValueError(f"the format {head[1]!r}" if head else "an unknown format")
    while line := file.readline(_LINE_BYTES):
        found = _LINE.fullmatch(line.decode(errors="replace").rstrip("\n"))
        if found and _is_inside(found[2]):
            yield found[2], found[1]


def _temporary() -> sqlite3.Connection:
    db = sqlite3.connect("", isolation_level=None)
    db.execute(
        "CREATE TABLE file (path TEXT PRIMARY KEY, key TEXT, listed INT, hash TEXT, "
        "next_hash TEXT, state INT DEFAULT 0, staged INT) WITHOUT ROWID"
    )
    db.execute("CREATE INDEX by_key ON file (key)")
    db.execute("BEGIN")
    return db


def _staged(number: int) -> str:
    return f"{_STAGED}/{number // 1000}/{number % 1000}"


def _is_inside(path: str) -> bool:
    """Whether a path stays within the folder, and out of hidden ones."""
    return path.isprintable() and all(p and not p.startswith(".") for p in path.split("/"))
