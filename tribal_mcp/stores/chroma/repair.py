"""Repairs what `check` finds.

It completes what a killed writer started, rebuilds a damaged vector index, moves memories that have
lost their vectors to the collection for those without one, and removes what belongs to nothing.
"""

import shutil

from tribal_mcp.errors import StoreDamaged, StoreError, StoreLocked
from tribal_mcp.stores.chroma.check import check, check_collection, duplicates, ownerless
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.files.value_types import correct_types, wrong_types
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.full_text import create_full_text, has_full_text
from tribal_mcp.stores.chroma.recovery import rebuild, recover
from tribal_mcp.stores.errors import RESCUE, explained
from tribal_mcp.stores.raw import RawCollection
from tribal_mcp.stores.record import pending_name, tombstones_name
from tribal_mcp.text import counted


def repair(folder: ChromaFolder, collection: str) -> list[str]:
    """Repair what `check` finds. Requires the lock. If it is killed, it can be run again.

    Returns:
        What was done, in sentences.

    Raises:
        StoreDamaged: the database itself is damaged.
        StoreError: the layout is unknown, or the collection can't be written to.
        NoSpace: there is too little free space.
    """
    _refuse(folder, collection)
    try:
        with explained(folder.path):
            return _repair(folder, collection)
    except StoreLocked:
        raise
    except StoreError as error:
        if RESCUE in error.next_steps:
            raise
        raise StoreDamaged(f"The repair failed, and discarded nothing. {error}", RESCUE) from error


def _repair(folder: ChromaFolder, collection: str) -> list[str]:
    done = _correct_tables(folder) if folder.exists else []
    before = len(folder.notes)
    recover(folder)
    done += folder.notes[before:]
    if not folder.exists:
        return done
    for name in (collection, pending_name(collection), tombstones_name(collection)):
        raw = folder.raw(name)
        if raw is not None:
            with folder.step():
                done += _repair_collection(folder, raw)
                folder.apply_log(name)
    with folder.step():
        done += _remove_duplicates(folder, collection)
    files = folder.files()
    if isinstance(files, ChromaFiles):
        for path in ownerless(folder.path, files):
            shutil.rmtree(path)
            done.append(f"The index directory {path.name}, which no collection used, was removed.")
    return done


def _refuse(folder: ChromaFolder, collection: str) -> None:
    """Refuse what a repair can't deal with, before it changes anything.

    Raises:
        StoreDamaged: there is such a problem.
    """
    problems = [p for p in check(folder, collection) if not p.harmless]
    blocking = [problem for problem in problems if not problem.repairable]
    if blocking:
        raise StoreDamaged(f"{blocking[0].message} A repair can't correct that.", RESCUE)
    if problems and folder.exists and folder.needs_conversion():
        raise StoreDamaged(
            "An older version of Chroma made this folder, and only folders of the current version "
            f"are repaired. It is left as it is. {problems[0].message}",
            RESCUE,
        )


def _correct_tables(folder: ChromaFolder) -> list[str]:
    """Correct what Chroma would fail on, in one transaction, before Chroma opens the folder."""
    with ChromaFiles(folder.path) as files:
        marks = files.wrong_marks()
        numbers = [0 if scope == "VECTOR" else files.last_written(s) for s, scope in marks]
        torn = [c for c in files.collections() if (files.vector_segment(c)[0], "VECTOR") in marks]
        dimensions = [
            (real, raw.id, raw.name)
            for raw in files.collections()
            if (real := files.stored_dimension(raw)) not in (None, raw.dimension)
        ]
        has_table = has_full_text(files.sql)
        types = wrong_types(files.sql)
    if not (marks or dimensions or types) and has_table:
        return []
    folder.check_free_space(folder.database.stat().st_size if not has_table else 0)
    folder.close()
    done: list[str] = []
    with folder.connection() as sql:
        done += [f"{wrong}; they were corrected or removed." for wrong in correct_types(sql)]
        for (segment, _), number in zip(marks, numbers, strict=True):
            sql.execute("UPDATE max_seq_id SET seq_id = ? WHERE segment_id = ?", (number, segment))
            done.append(f"The last change that segment {segment} holds was corrected.")
        for real, collection_id, name in dimensions:
            sql.execute("UPDATE collections SET dimension = ? WHERE id = ?", (real, collection_id))
            done.append(f"The recorded dimensions of {name!r} were corrected to {real}.")
        if not has_table:
            create_full_text(sql)
            done.append("The full-text table of the database was created from the documents.")
    folder.sync()
    for raw in torn:
        with folder.step():
            done += rebuild(folder, raw)
    return done


def _repair_collection(folder: ChromaFolder, raw: RawCollection) -> list[str]:
    kinds = {problem.kind for problem in check_collection(folder.chroma_files(), raw)}
    if not kinds & {"index", "no row", "no vector", "wrong vector", "dimensions"}:
        return []
    return rebuild(folder, raw)


def _remove_duplicates(folder: ChromaFolder, collection: str) -> list[str]:
    ids = duplicates(folder.chroma_files(), collection)
    if not ids:
        return []
    pending = pending_name(collection)
    folder.back_up_index(pending)
    folder.chroma_collection(pending).delete(ids)
    removed = counted(len(ids), "duplicate was", "duplicates were")
    return [f"{removed} removed; the memory with a vector was kept."]
