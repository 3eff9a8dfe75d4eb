"""Recovers a folder whose writer was killed, before the folder is used.

A killed writer leaves its marker. It may also leave a call in Chroma's log that is not in the rows,
or a batch of which only some steps were done. If it was killed while Chroma wrote a vector index,
the index may be one that Chroma can't load, or that Chroma loads and then discards in part. Chroma
never opens such an index again: its vectors are copied from its files and the log, the index is set
aside, and Chroma rebuilds it. If the recovery is killed as well, the next one starts over.
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson

from tribal_mcp.errors import StoreDamaged, StoreError
from tribal_mcp.files.atomic import make_private, write_atomically
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.base import BATCH
from tribal_mcp.stores.chroma.collection_swap import FILE as SWAP
from tribal_mcp.stores.chroma.collection_swap import finish_swap
from tribal_mcp.stores.chroma.files.reader import ChromaFiles, log_only
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.lock import OWN_FOLDER
from tribal_mcp.stores.chroma.salvage import SalvagedFiles
from tribal_mcp.stores.chroma.write import apply_batch, check_embedding_function
from tribal_mcp.stores.errors import RESCUE, explained
from tribal_mcp.stores.raw import RawCollection
from tribal_mcp.text import counted, memories

REBUILD = "rebuild"
"""The directory for the vectors of an index while it is rebuilt."""
_REFUSALS = {"InvalidArgumentError", "DuplicateIDError", "ValueError", "TypeError"}
"""What Chroma raises because of the entries, before it has changed anything."""

log = logging.getLogger(__name__)


def recover(folder: ChromaFolder) -> None:
    """Called at the start of each session, with the lock held.

    Raises:
        NoSpace: there is too little free space.
        StoreDamaged: the recovery failed; nothing was discarded.
    """
    writer = folder.lock.writer()
    in_progress = any(path.exists() for path in (folder.own / REBUILD, folder.own / SWAP))
    if writer is None and not in_progress and not folder.journal.exists():
        return
    with folder.step():
        done = _recover_collections(folder) if folder.exists else []
        done += finish_swap(folder)
        done += finish_batch(folder)
    folder.end_writing()
    if done:
        who = f"A writer ({writer})" if writer else "A writer"
        folder.note(f"{who} was killed. The folder was recovered: {' '.join(done)}")
        log.warning(folder.notes[-1])


def _recover_collections(folder: ChromaFolder) -> list[str]:
    done: list[str] = []
    if not isinstance(files := folder.files(), ChromaFiles):
        return done
    for raw in files.collections():
        segment, applied = files.vector_segment(raw)
        in_progress = (folder.own / REBUILD / segment).exists()
        if in_progress or folder.index_backup.interrupted(segment, applied):
            done.append(rebuild(folder, raw))
            files = folder.chroma_files()
        if files.unapplied(raw):
            folder.apply_log(raw.name)
            done.append(f"Changes of {raw.name!r} that were only in Chroma's log were applied.")
    return done


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
    folder: ChromaFolder, raw: RawCollection, source: ChromaFiles | SalvagedFiles | None = None
) -> str:
    """Rebuild the collection's index from the vectors in its files and the log.

    Args:
        folder: the Chroma folder.
        raw: the collection.
        source: where to read the vectors; by default, the folder's own files.

    Returns:
        What was done, in a sentence.

    Raises:
        StoreDamaged: a vector of the rebuilt index differs from the one before.
    """
    check_embedding_function(raw)
    files = source or folder.chroma_files()
    segment, _ = files.vector_segment(raw)
    place = folder.own / REBUILD / segment
    if not (place / "ids.json").exists():
        _save_vectors(folder, files, raw, place)
    saved = _SavedVectors(place)
    folder.close()
    index = folder.path / segment
    if index.exists():
        if (place / "index").exists():
            shutil.rmtree(index)  # left by a rebuild that was killed
        else:
            index.replace(place / "index")
    folder.index_backup.remove(segment)
    folder.check_free_space(0)
    collection = folder.chroma_collection(raw.name)
    collection.count()  # Chroma applies its log to the rows and a new index
    with ChromaFiles(folder.path, on_index_damage=log_only) as files:
        missing = [i for i in files.without_vector(raw) if i in saved.places]
    for start in range(0, len(missing), BATCH):
        part = missing[start : start + BATCH]
        collection.upsert(ids=part, embeddings=saved.read(part))  # type: ignore[arg-type]
    with ChromaFiles(folder.path, on_index_damage=log_only) as files:
        _compare(files, raw, saved)
    shutil.rmtree(place)
    if not any(place.parent.iterdir()):
        place.parent.rmdir()
    return f"The vector index of {raw.name!r} was rebuilt ({counted(len(saved.places), 'vector')})."


def _save_vectors(
    folder: ChromaFolder, files: ChromaFiles | SalvagedFiles, raw: RawCollection, place: Path
) -> None:
    ids = list(dict.fromkeys([*files.ids(raw), *files.without_row(raw)]))
    folder.check_free_space(len(ids) * (raw.dimension or 0) * 4)
    make_private(place)
    found: list[str] = []

    def vectors() -> Iterator[bytes]:
        for start in range(0, len(ids), BATCH):
            part = files.vectors(raw, ids[start : start + BATCH])
            found.extend(part)
            yield from (vector.tobytes() for vector in part.values())

    write_atomically(place / "vectors.f32", vectors())
    write_atomically(place / "ids.json", orjson.dumps(found))  # now the copy is complete


class _SavedVectors:
    """The vectors that were copied before the index was set aside."""

    def __init__(self, place: Path) -> None:
        ids: list[str] = orjson.loads((place / "ids.json").read_bytes())
        self.places = {memory_id: n for n, memory_id in enumerate(ids)}
        self._vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]] = (
            np.memmap(place / "vectors.f32", "<f4", "r").reshape(len(ids), -1)
            if ids
            else np.empty((0, 0), np.float32)
        )

    def read(self, ids: Sequence[str]) -> list[Vector]:
        """The vectors of those ids, copied."""
        return list(self._vectors[[self.places[i] for i in ids]])


def _compare(files: ChromaFiles, raw: RawCollection, saved: _SavedVectors) -> None:
    exact = raw.space != "cosine"  # Chroma stores those divided by their norms
    ids = [i for i in files.ids(raw) if i in saved.places]
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH]
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
