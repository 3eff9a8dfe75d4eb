"""Brings a folder that was left in mid-write back to what was acknowledged, before it is used.

A killed writer leaves its mark. It may have left a call that stands in Chroma's log and not yet in
the rows; a batch of which only some steps were made; and, if it was killed while Chroma wrote a
vector index, an index that Chroma can't load, or loads and then throws away what it can't find.
Such an index is never opened again: its vectors are copied out of its files and the log, it is set
aside, and Chroma builds it anew. All of this may be killed as well, and is then done again.
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson

from tribal_mcp.errors import StoreDamaged, StoreError
from tribal_mcp.files.atomic import make_private, write_atomically
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.chroma.collection_swap import FILE as SWITCH
from tribal_mcp.stores.chroma.collection_swap import finish_switch
from tribal_mcp.stores.chroma.files.reader import ChromaFiles, log_only
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.salvage import SalvagedFiles
from tribal_mcp.stores.chroma.write import carry_out, refuse_strangers
from tribal_mcp.stores.errors import explained
from tribal_mcp.stores.raw import RawCollection

REBUILD = "rebuild"
"""Where the vectors of an index lie while it is built anew."""
_BATCH = 1000
_REFUSALS = {"InvalidArgumentError", "DuplicateIDError", "ValueError", "TypeError"}
"""What Chroma raises where the entries are at fault, before it has done anything."""

log = logging.getLogger(__name__)


def recover(folder: ChromaFolder) -> None:
    """Called with the lock in hand, at the begin of each session.

    Raises:
        NoSpace: recovering takes more space than there is.
        StoreDamaged: it could not be done; nothing was thrown away.
    """
    writer = folder.lock.writer()
    rebuilds = folder.own / REBUILD
    begun = any(path.exists() for path in (rebuilds, folder.own / SWITCH))
    if writer is None and not begun and not folder.journal.exists():
        return
    with folder.at_risk():
        done = _recover(folder) if folder.exists else []
        done += finish_switch(folder)
        done += finish_batch(folder)
    folder.lock.unmark()
    if done:
        who = f"{writer} ended" if writer else "A writer ended"
        folder.note(f"{who} in mid-write; the folder was checked: {' '.join(done)}")
        log.warning(folder.notes[-1])


def _recover(folder: ChromaFolder) -> list[str]:
    done: list[str] = []
    if not isinstance(files := folder.files(), ChromaFiles):
        return done
    for raw in files.collections():
        segment, applied = files.vector_segment(raw)
        begun = (folder.own / REBUILD / segment).exists()
        if begun or folder.index_backup.interrupted(segment, applied):
            done.append(rebuild(folder, raw))
            files = _direct(folder)
        if files.unapplied(raw):
            folder.catch_up(raw.name)
            done.append(f"Calls that stood in the log of {raw.name!r} only were carried out.")
    return done


def finish_batch(folder: ChromaFolder) -> list[str]:
    """Carry out the batch that was begun; one that Chroma refuses is set aside."""
    batch = folder.journal.read()
    if batch is None:
        folder.journal.remove()
        return []
    risks = folder.risks
    try:
        with explained(folder.path):
            carry_out(folder, batch)
    except (StoreError, ValueError, TypeError) as error:
        if not {type(error).__name__, type(error.__cause__).__name__} & _REFUSALS:
            raise
        aside = folder.journal.set_aside()
        folder.risks = risks
        count, place = len(batch.change.ids), aside.relative_to(folder.path)
        return [f"A batch of {count} memories can't be written ({error}); it is kept in {place}."]
    folder.journal.remove()
    return [f"A batch of {len(batch.change.ids)} memories that was begun was completed."]


def rebuild(
    folder: ChromaFolder, raw: RawCollection, source: ChromaFiles | SalvagedFiles | None = None
) -> str:
    """Build the collection's index anew from what its files and the log hold.

    Args:
        folder: where it is.
        raw: the collection.
        source: what reads the vectors, if not the folder's own files.

    Returns:
        What was done, for the user.
    """
    refuse_strangers(raw)
    files = source or _direct(folder)
    segment, _ = files.vector_segment(raw)
    place = folder.own / REBUILD / segment
    if not (place / "ids.json").exists():
        _copy_vectors(folder, files, raw, place)
    kept = _Kept(place)
    folder.close()
    index = folder.path / segment
    if index.exists():
        if (place / "index").exists():
            shutil.rmtree(index)  # of a rebuilding that was killed
        else:
            index.replace(place / "index")
    folder.index_backup.remove(segment)
    folder.refuse_full_disk(0)
    collection = folder.at_name(raw.name)
    collection.count()  # Chroma plays its log into the rows and a new index
    with ChromaFiles(folder.path, on_index_damage=log_only) as building:
        wanted = [i for i in building.without_vector(raw) if i in kept.places]
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        collection.upsert(ids=part, embeddings=kept.read(part))  # type: ignore[arg-type]
    with ChromaFiles(folder.path, on_index_damage=log_only) as built:
        _compare(built, raw, kept)
    shutil.rmtree(place)
    _remove_empty(place.parent)
    return f"The vector index of {raw.name!r} was built anew ({len(kept.places):,} vectors)."


def _direct(folder: ChromaFolder) -> ChromaFiles:
    files = folder.files()
    assert isinstance(files, ChromaFiles)  # noqa: S101 - the layout was known a moment ago
    return files


def _copy_vectors(
    folder: ChromaFolder, files: ChromaFiles | SalvagedFiles, raw: RawCollection, place: Path
) -> None:
    ids = list(dict.fromkeys([*files.ids(raw), *files.without_row(raw)]))
    folder.refuse_full_disk(len(ids) * (raw.dimension or 0) * 4)
    make_private(place)
    found: list[str] = []

    def vectors() -> Iterator[bytes]:
        for start in range(0, len(ids), _BATCH):
            part = files.vectors(raw, ids[start : start + _BATCH])
            found.extend(part)
            yield from (vector.tobytes() for vector in part.values())

    write_atomically(place / "vectors.f32", vectors())
    write_atomically(place / "ids.json", orjson.dumps(found))  # now the copy is complete


class _Kept:
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


def _compare(files: ChromaFiles, raw: RawCollection, kept: _Kept) -> None:
    exact = raw.space != "cosine"  # which stores them divided by their norms
    ids = [i for i in files.ids(raw) if i in kept.places]
    for start in range(0, len(ids), _BATCH):
        part = ids[start : start + _BATCH]
        found = files.vectors(raw, part)
        for memory_id, before in zip(part, kept.read(part), strict=True):
            now = found.get(memory_id)
            if now is None or not (
                now.tobytes() == before.tobytes()
                if exact
                else np.allclose(now, before, rtol=1e-5, atol=1e-7)
            ):
                raise StoreDamaged(
                    f"The index of {raw.name!r} was built anew and lacks the vector of "
                    f"{memory_id!r}. All vectors are kept in tribal-mcp/{REBUILD}; run the same "
                    "again, or `tribal-mcp rescue FILE`."
                )


def _remove_empty(place: Path) -> None:
    if not any(place.iterdir()):
        place.rmdir()
