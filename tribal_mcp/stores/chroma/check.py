"""Finds what is lost, left over or inconsistent in a folder, without changing anything."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.stores.chroma.checksums import matches, replaced_by_others
from tribal_mcp.stores.chroma.files.hnsw import FILES
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.files.tables import NotRolledBack
from tribal_mcp.stores.chroma.files.value_types import wrong_types
from tribal_mcp.stores.chroma.folder import REBUILD, SWAP, ChromaFolder
from tribal_mcp.stores.chroma.full_text import has_full_text
from tribal_mcp.stores.chroma.migration import DATABASE
from tribal_mcp.stores.errors import is_damage
from tribal_mcp.stores.raw import RawCollection, UnknownLayout
from tribal_mcp.stores.record import CHECKSUM, OURS, pending_name, tombstones_name
from tribal_mcp.text import counted

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        kind: `unfinished`, `no vector`, `wrong vector`, `no row`, `both`, `index`, `log`,
            `dimensions`, `types`, `full text`, `leftover`, `database`, `layout`, `settings`,
            `older` or `foreign`.
        message: what it is, in a sentence.
        count: how many memories, or files, it affects.
        examples: the first of their ids or names.
    """

    kind: str
    message: str
    count: int = 1
    examples: list[str] = field(default_factory=list)

    @property
    def harmless(self) -> bool:
        """Whether it is for information only: nothing is lost or wrong."""
        return self.kind in ("foreign", "leftover", "older")

    @property
    def repairable(self) -> bool:
        """Whether a repair deals with it, rather than a rescue."""
        return self.kind not in ("database", "layout", "settings")


def check(folder: ChromaFolder, collection: str) -> list[Problem]:
    """The problems of the folder and of one collection and its siblings. Requires the lock."""
    if not folder.exists:
        return list(_without_database(folder))
    problems = list(_unfinished(folder))
    try:
        with ChromaFiles(folder.path, rollback=False) as files:
            if files.older:
                problems.append(Problem("older", "An older version of Chroma made this folder."))
            wrong = list(check_tables(files))
            problems += wrong or _check_store(files, collection)
            problems += _leftover(ownerless(folder.path, files))
    except NotRolledBack as error:
        problems.append(Problem("unfinished", str(error)))
    except UnknownLayout as error:
        problems.append(Problem("layout", str(error)))
    except StoreDamaged as error:
        problems.append(Problem("database", str(error)))
    except sqlite3.DatabaseError as error:
        if not is_damage(error, folder.path):
            raise
        problems.append(Problem("database", f"The Chroma database is damaged: {error}."))
    return problems


def _without_database(folder: ChromaFolder) -> Iterator[Problem]:
    """An empty folder is sound; one with index files, or with something else, is not."""
    if folder.database.is_dir():
        yield Problem("database", f"{DATABASE} is a directory, not a database.")
    elif any(folder.path.glob("*/header.bin")):
        yield Problem(
            "database", f"{DATABASE} is missing or empty, though the folder has vector indexes."
        )


def check_tables(files: ChromaFiles) -> Iterator[Problem]:
    """What is wrong with the tables of the database, whatever the collection."""
    for wrong in wrong_types(files.sql):
        yield Problem("types", f"{wrong}.", wrong.values, [wrong.column])
    if not has_full_text(files.sql):
        yield Problem("full text", "The full-text table of the database is missing or damaged.")
    yield from _some(
        "log",
        [segment for segment, _ in files.wrong_marks()],
        "segment claims to hold changes that Chroma's log never had",
        "segments claim to hold changes that Chroma's log never had",
    )


def _check_store(files: ChromaFiles, collection: str) -> Iterator[Problem]:
    for name in (collection, pending_name(collection), tombstones_name(collection)):
        raw = files.collection(name)
        if raw is not None:
            yield from check_collection(files, raw)
    yield from _some(
        "both",
        duplicates(files, collection),
        "memory is a duplicate, stored with a vector and without",
        "memories are duplicates, stored with a vector and without",
    )


def _unfinished(folder: ChromaFolder) -> Iterator[Problem]:
    writer = folder.lock.writer()
    if writer is not None:
        yield Problem("unfinished", f"A writer was killed: {writer}.")
    if folder.journal.exists():
        yield Problem("unfinished", "A batch was started and not completed.")
    if (folder.own / SWAP).exists():
        yield Problem("unfinished", "A swap of collections was started and not completed.")
    rebuilds = folder.own / REBUILD
    if rebuilds.exists():
        names = sorted(path.name for path in rebuilds.iterdir())
        yield Problem(
            "unfinished",
            "The rebuild of an index was started and not completed.",
            len(names),
            names,
        )
    for refused in sorted(folder.own.glob("refused-*.jsonl")):
        yield Problem(
            "leftover", f"A batch that Chroma refused is kept in {refused.name}.", 1, [refused.name]
        )


def _leftover(paths: list[Path]) -> Iterator[Problem]:
    """Index directories without a collection: Chroma leaves them when it deletes one."""
    size = sum(file.stat().st_blocks * 512 for path in paths for file in path.iterdir())
    yield from _some(
        "leftover",
        [path.name for path in paths],
        f"index directory belongs to no collection ({size / 1024:,.0f} KiB)",
        f"index directories belong to no collection ({size / 1024:,.0f} KiB)",
    )


def check_collection(files: ChromaFiles, raw: RawCollection) -> Iterator[Problem]:
    """The problems of one collection."""
    of = f"of {raw.name!r}"
    if OURS not in raw.metadata:
        yield Problem("foreign", f"Another program created the collection {raw.name!r}.")
    try:
        raw.space  # noqa: B018 - raises
        raw.embedding_functions()
    except UnknownLayout as error:
        yield Problem("settings", str(error))
        return
    real = files.stored_dimension(raw)
    if real not in (None, raw.dimension):
        yield Problem(
            "dimensions",
            f"{raw.name!r} is recorded with {raw.dimension or 'no'} dimensions, and its vectors "
            f"have {real}.",
        )
        return
    behind = files.unapplied(raw)
    if behind:
        changes = counted(behind, f"change {of} is", f"changes {of} are")
        yield Problem("log", f"{changes} only in Chroma's log.", behind)
    try:
        yield from _index_problems(files, raw, of)
    except StoreDamaged as error:
        yield Problem("index", f"The vector index {of} is damaged: {error}")


def _index_problems(files: ChromaFiles, raw: RawCollection, of: str) -> Iterator[Problem]:
    if files.needs_backup(raw):
        yield Problem("index", f"The labels of the vector index {of} are damaged.")
    yield from _some(
        "no vector",
        files.without_vector(raw),
        f"memory {of} has lost its vector",
        f"memories {of} have lost their vectors",
    )
    yield from _some(
        "no row",
        files.without_row(raw),
        f"vector {of} belongs to no memory",
        f"vectors {of} belong to no memory",
    )
    wrong_size, wrong = _wrong_vectors(files, raw)
    yield from _some(
        "dimensions",
        wrong_size,
        f"vector {of} does not have {raw.dimension} dimensions",
        f"vectors {of} don't have {raw.dimension} dimensions",
    )
    yield from _some(
        "wrong vector",
        wrong,
        f"vector {of} is not the one that was stored",
        f"vectors {of} are not the ones that were stored",
    )


def _some(kind: str, ids: list[str], one: str, many: str) -> Iterator[Problem]:
    if ids:
        yield Problem(kind, f"{counted(len(ids), one, many)}.", len(ids), ids[:_EXAMPLES])


def _wrong_vectors(files: ChromaFiles, raw: RawCollection) -> tuple[list[str], list[str]]:
    """The ids whose vectors have another size, and those whose vectors are damaged or swapped."""
    wrong_size: list[str] = []
    wrong: list[str] = []
    replaced = replaced_by_others(files.sql, raw)
    for batch in files.read(raw):
        for record in batch:
            if record.vector is None:
                continue
            expected = record.metadata.get(CHECKSUM)
            if record.vector.size != raw.dimension:
                wrong_size.append(record.id)
            elif type(expected) is int and record.id not in replaced:
                if not matches(record.vector, expected, raw.space):
                    wrong.append(record.id)
            elif not files.is_written(raw, record.id):
                wrong.append(record.id)
    return wrong_size, wrong


def duplicates(files: ChromaFiles, collection: str) -> list[str]:
    """The ids that the collection and its pending sibling both have."""
    found = [files.collection(name) for name in (collection, pending_name(collection))]
    main, pending = (set(files.ids(raw)) if raw else set() for raw in found)
    return sorted(main & pending)


def ownerless(folder: Path, files: ChromaFiles) -> list[Path]:
    """Directories with index files, and nothing else, that no collection owns."""
    owned = files.segments()
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir()
        and not path.is_symlink()
        and _is_uuid(path.name)
        and path.name not in owned
        and {inside.name for inside in path.iterdir()} <= set(FILES)
    )


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
