"""Recovers a folder whose writer was killed, before the folder is used.

A killed writer leaves its marker. It may also leave a call in Chroma's log that is not in the rows,
or a batch of which only some steps were done. If it was killed while Chroma wrote a vector index,
the index may be one that Chroma can't load, or that Chroma loads and then discards in part. Chroma
never opens such an index again: its vectors are copied from its files and the log, the index is set
aside, and Chroma rebuilds it. If the recovery is killed as well, the next one starts over.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson

from tribal_mcp.errors import StoreDamaged, StoreError
from tribal_mcp.files.atomic import (
    fsync_directory,
    make_private,
    remove_durably,
    write_atomically,
)
from tribal_mcp.next_steps import NextStep
from tribal_mcp.stores.base import BATCH, Change, OnWait, in_parts
from tribal_mcp.stores.chroma.collection_swap import finish_swap
from tribal_mcp.stores.chroma.files.reader import ChromaFiles, log_only
from tribal_mcp.stores.chroma.folder import REBUILD, ChromaFolder
from tribal_mcp.stores.chroma.journal import Batch
from tribal_mcp.stores.chroma.lock import OWN_FOLDER
from tribal_mcp.stores.chroma.proof import ProvenVectors, SavedVectors
from tribal_mcp.stores.chroma.write import apply_batch, check_embedding_function, is_writable
from tribal_mcp.stores.errors import RESCUE, explained
from tribal_mcp.stores.raw import RawCollection
from tribal_mcp.stores.record import OURS, to_entry
from tribal_mcp.text import counted, memories

_EXAMPLES = 5
_REFUSALS = {"InvalidArgumentError", "DuplicateIDError", "ValueError", "TypeError"}
"""What Chroma raises because of the entries, before it has changed anything."""

log = logging.getLogger(__name__)


def recover(folder: ChromaFolder, on_wait: OnWait = lambda _: None) -> None:
    """Called at the start of each session, with the lock held.

    Args:
        folder: the Chroma folder.
        on_wait: told how far a rebuild is; an exception from it ends the recovery, and the next
            session starts it again.

    Raises:
        NoSpace: there is too little free space.
        StoreDamaged: the recovery failed; nothing was discarded.
    """
    if not folder.is_interrupted:
        return
    writer = folder.lock.writer()
    if folder.exists and folder.needs_conversion():
        return  # this program has never written to it, for that converts it
    power_cut = writer is not None and writer.before_restart
    with folder.step():
        folder.restore_full_text()
        done = _recover_collections(folder, on_wait, power_cut=power_cut) if folder.exists else []
        done += finish_swap(folder)
        done += finish_batch(folder)
    folder.end_writing()
    if done:
        if power_cut:
            why = f"This computer restarted while {writer} was writing."
        else:
            why = f"A writer ({writer}) was killed." if writer else "A writer was killed."
        folder.note(f"{why} The folder was recovered: {' '.join(done)}")
        log.warning(folder.notes[-1])


def _recover_collections(folder: ChromaFolder, on_wait: OnWait, *, power_cut: bool) -> list[str]:
    done: list[str] = []
    if not isinstance(files := folder.files(), ChromaFiles):
        return done
    for raw in files.collections():
        segment, _ = files.vector_segment(raw)
        backup = folder.index_backup.read(segment, labels=False)
        in_progress = (folder.own / REBUILD / segment).exists()
        written = OURS in raw.metadata or backup is not None or in_progress
        if not written or not is_writable(raw):
            continue  # this program has never written to it
        if _is_suspect(folder, files, raw, power_cut=power_cut):
            done += rebuild(folder, raw, on_wait, power_cut=power_cut)
            files = folder.chroma_files()
        if files.unapplied(raw):
            folder.apply_log(raw.name)
            done.append(f"Changes of {raw.name!r} that were only in Chroma's log were applied.")
        if backup is not None:
            folder.back_up_index(raw.name)  # it may not be on the disk yet
    return done


def _is_suspect(
    folder: ChromaFolder, files: ChromaFiles, raw: RawCollection, *, power_cut: bool
) -> bool:
    """Whether Chroma must not open the collection's index."""
    segment, applied = files.vector_segment(raw)
    return (
        (folder.own / REBUILD / segment).exists()
        or folder.index_backup.interrupted(segment, applied)
        or _is_unreadable(files, raw)
        or (power_cut and _may_be_torn(folder, files, raw))
    )


def _is_unreadable(files: ChromaFiles, raw: RawCollection) -> bool:
    """Whether Chroma may be unable to open the index."""
    try:
        return files.needs_backup(raw)
    except StoreDamaged:
        return True


def _may_be_torn(folder: ChromaFolder, files: ChromaFiles, raw: RawCollection) -> bool:
    """Whether this program may have written the index shortly before a power cut.

    If it did, it backed up the index before, and kept the log from then on. If the log does not
    reach back to the backup, another program has written the index since.
    """
    segment, applied = files.vector_segment(raw)
    backup = folder.index_backup.read(segment, labels=False)
    if backup is None:
        return applied is None or files.first_logged(raw) == 1
    return backup.synced and (files.first_logged(raw) or 0) <= backup.applied


def finish_batch(folder: ChromaFolder) -> list[str]:
    """Apply the batch in progress; set it aside if Chroma refuses it. What was done."""
    batch = folder.journal.read()
    if batch is None:
        folder.journal.remove()
        return []
    size = memories(len(batch.change.ids))
    open_steps = folder.open_steps
    try:
        with explained(folder.path):
            apply_batch(folder, batch)
    except (StoreError, ValueError, TypeError) as error:
        kinds = {type(error).__name__, type(error.__cause__).__name__} & _REFUSALS
        if not kinds:
            raise
        log.warning("Chroma refused a batch", exc_info=error)
        aside = folder.journal.set_aside().relative_to(folder.path)
        folder.open_steps = open_steps
        return [f"Chroma refused a batch of {size} ({kinds.pop()}); it is kept in {aside}."]
    folder.journal.remove()
    return [f"A batch of {size} in progress was completed."]


def rebuild(
    folder: ChromaFolder,
    raw: RawCollection,
    on_wait: OnWait = lambda _: None,
    *,
    power_cut: bool = False,
) -> list[str]:
    """Rebuild the collection's index from the vectors that provably belong to their ids.

    Chroma never opens the present index. Its files are set aside and removed once the new index is
    on the disk. In a collection of ours, a memory whose vector is lost is kept without one.

    Args:
        folder: the Chroma folder.
        raw: the collection.
        on_wait: told how far the rebuild is.
        power_cut: whether the folder may be as a power cut left it.

    Returns:
        What was done, in sentences.

    Raises:
        StoreDamaged: a vector of the rebuilt index differs from the one before.
    """
    check_embedding_function(raw)
    folder.check_writable()
    segment, _ = folder.chroma_files().vector_segment(raw)
    place = folder.own / REBUILD / segment
    if not (place / "ids.json").exists():
        _save_vectors(folder, raw, place, power_cut=power_cut)
    saved = SavedVectors(place)
    folder.close()
    _set_aside(folder.path / segment, place / "index")
    folder.index_backup.remove(segment)
    folder.check_free_space(0)
    folder.own_log()
    collection = folder.chroma_collection(raw.name)
    collection.count()  # Chroma applies its log to the rows and a new index
    with ChromaFiles(folder.path, on_index_damage=log_only) as files:
        missing = [i for i in files.without_vector(raw) if i in saved.places]
    for start in range(0, len(missing), BATCH):
        part = missing[start : start + BATCH]
        on_wait(
            f"Rebuilding the vector index of {raw.name!r}: {start:,} of {len(missing):,} vectors"
        )
        collection.upsert(ids=part, embeddings=saved.read(part))  # type: ignore[arg-type]
        folder.back_up_index(raw.name)
    with ChromaFiles(folder.path, on_index_damage=log_only) as files:
        _compare(files, raw, saved)
    done = [
        f"The vector index of {raw.name!r} was rebuilt ({counted(len(saved.places), 'vector')})."
    ]
    done += _keep_without_vector(folder, raw, saved)
    folder.back_up_index(raw.name)
    folder.sync()
    remove_durably(place / "ids.json")  # a copy that came back would replace newer vectors
    shutil.rmtree(place)
    if not any(place.parent.iterdir()):
        place.parent.rmdir()
    fsync_directory(folder.own)
    return done


def _set_aside(index: Path, aside: Path) -> None:
    if not index.exists():
        return
    if aside.exists():
        shutil.rmtree(index)  # left by a rebuild that was killed
    else:
        index.replace(aside)
        fsync_directory(aside.parent)
    fsync_directory(index.parent)


def _save_vectors(
    folder: ChromaFolder, raw: RawCollection, place: Path, *, power_cut: bool
) -> None:
    files = folder.chroma_files()
    ids = files.ids(raw)
    folder.check_free_space(len(ids) * (raw.dimension or 0) * 4)
    make_private(place)
    found: list[str] = []

    def vectors() -> Iterator[bytes]:
        with closing(ProvenVectors(files, raw, power_cut=power_cut)) as proven:
            for part in in_parts(ids):
                read = proven.read(part)
                found.extend(read)
                yield from (vector.tobytes() for vector in read.values())

    write_atomically(place / "vectors.f32", vectors())
    write_atomically(place / "ids.json", orjson.dumps(found))  # now the copy is complete


def _keep_without_vector(
    folder: ChromaFolder, raw: RawCollection, saved: SavedVectors
) -> list[str]:
    """Move the memories whose vectors are lost to the collection for those without one."""
    lost = [i for i in folder.chroma_files().ids(raw) if i not in saved.places]
    if not lost:
        return []
    if OURS in raw.metadata:
        with ChromaFiles(folder.path, on_index_damage=log_only) as files:
            batches = list(files.read(raw, lost, vectors=False))
        for batch in batches:
            entries = [to_entry(r.id, r.document, r.metadata, None) for r in batch]
            apply_batch(folder, Batch(raw.name, Change(entries)))
    some = ", ".join(map(repr, lost[:_EXAMPLES])) + (" and others" if len(lost) > _EXAMPLES else "")
    one = f"memory of {raw.name!r} has lost its vector: {some}."
    many = f"memories of {raw.name!r} have lost their vectors: {some}."
    return [counted(len(lost), one, many)]


def _compare(files: ChromaFiles, raw: RawCollection, saved: SavedVectors) -> None:
    import numpy as np

    exact = raw.space != "cosine"  # Chroma stores those divided by their norms
    ids = [i for i in files.ids(raw) if i in saved.places]
    for part in in_parts(ids):
        found = files.vectors(raw, part)
        for memory_id, before in zip(part, saved.read(part), strict=True):
            now = found.get(memory_id)
            if now is None or not (
                now.tobytes() == before.tobytes()
                if exact
                else np.allclose(now, before, rtol=1e-5, atol=1e-7)
            ):
                raise StoreDamaged(
                    f"The rebuilt index of {raw.name!r} lacks the vector of {memory_id!r}. All "
                    f"vectors are kept in {OWN_FOLDER}/{REBUILD}.",
                    NextStep("To rebuild the index again, repeat the call."),
                    RESCUE,
                )
