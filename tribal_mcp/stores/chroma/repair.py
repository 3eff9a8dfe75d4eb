"""Repairs what `check` finds.

It completes what a killed writer started, rebuilds a damaged vector index, moves memories that have
lost their vectors to the collection for those without one, and removes what belongs to nothing.
"""

import shutil

from tribal_mcp.stores.chroma.check import check_collection, duplicates, ownerless
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.recovery import rebuild, recover
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
    before = len(folder.notes)
    recover(folder)
    done = folder.notes[before:]
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
