"""Repairs what `check` finds.

It completes what a killed writer started, rebuilds a damaged vector index, moves memories that have
lost their vectors to the collection for those without one, and removes what belongs to nothing.
"""

import shutil

from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma.check import check_collection, duplicates, ownerless
from tribal_mcp.stores.chroma.files.reader import ChromaFiles, log_only
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.journal import Batch
from tribal_mcp.stores.chroma.recovery import rebuild, recover
from tribal_mcp.stores.chroma.salvage import SalvagedFiles
from tribal_mcp.stores.chroma.write import apply_batch
from tribal_mcp.stores.raw import RawCollection
from tribal_mcp.stores.record import DELETED, pending_name, to_entry, tombstones_name
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
                folder.apply_log(name)
                done += _repair_collection(folder, raw)
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
    done: list[str] = []
    if kinds & {"index", "no row", "no vector", "dimensions"}:
        folder.close()
        with SalvagedFiles(folder.path) as salvaged:
            done.append(rebuild(folder, raw, salvaged))
    with ChromaFiles(folder.path, on_index_damage=log_only) as files:
        lost = files.without_vector(raw)
        batches = list(files.read(raw, lost, vectors=False))
    are_tombstones = raw.name.endswith(tombstones_name(""))
    for batch in batches:
        if are_tombstones:
            main = raw.name.removesuffix(tombstones_name(""))
            change = Change(forget={r.id: r.metadata[DELETED] for r in batch})
        else:
            main = raw.name.removesuffix(pending_name(""))
            change = Change([to_entry(r.id, r.document, r.metadata, None) for r in batch])
        apply_batch(folder, Batch(main, change))
    if lost and not are_tombstones:
        one = f"memory of {raw.name!r} has lost its vector for good and is kept without one."
        many = f"memories of {raw.name!r} have lost their vectors for good and are kept without."
        done.append(counted(len(lost), one, many))
    return done


def _remove_duplicates(folder: ChromaFolder, collection: str) -> list[str]:
    ids = duplicates(folder.chroma_files(), collection)
    if not ids:
        return []
    pending = pending_name(collection)
    folder.back_up_index(pending)
    folder.chroma_collection(pending).delete(ids)
    removed = counted(len(ids), "duplicate was", "duplicates were")
    return [f"{removed} removed; the memory with a vector was kept."]
