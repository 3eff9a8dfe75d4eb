"""Looks at a folder for what is lost, left over or at odds with itself, and mends it.

`check` changes nothing. `repair` ends what a killed writer began, builds a damaged vector index
anew, moves memories whose vectors are gone to those without a vector, where they are kept, exported
and embedded again, and removes what nobody owns.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma.api_reader import ApiFiles
from tribal_mcp.stores.chroma.collection_swap import FILE as SWITCH
from tribal_mcp.stores.chroma.files.hnsw import FILES
from tribal_mcp.stores.chroma.files.reader import ChromaFiles, log_only
from tribal_mcp.stores.chroma.folder import OURS, ChromaFolder
from tribal_mcp.stores.chroma.journal import Batch
from tribal_mcp.stores.chroma.recovery import REBUILD, rebuild, recover
from tribal_mcp.stores.chroma.salvage import SalvagedFiles
from tribal_mcp.stores.chroma.write import carry_out
from tribal_mcp.stores.raw import RawCollection, UnknownLayout
from tribal_mcp.stores.record import DELETED, pending_name, to_entry, tombstones_name

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        kind: `unfinished`, `no vector`, `no row`, `both`, `index`, `log`, `dimensions`,
            `leftover`, `database`, `layout` or `foreign`; the last is for information only.
        message: what it is, in a sentence.
        count: how many memories, or files, it touches.
        examples: the first of their ids or names.
    """

    kind: str
    message: str
    count: int = 1
    examples: list[str] = field(default_factory=list)

    @property
    def harmless(self) -> bool:
        """Whether nothing is lost or wrong."""
        return self.kind == "foreign"


def check(folder: ChromaFolder, collection: str) -> list[Problem]:
    """What is wrong with the folder and with a collection in it; the lock is in hand."""
    if not folder.exists:
        return []
    problems = list(_unfinished(folder))
    try:
        with ChromaFiles(folder.path) as files:
            for name in (collection, pending_name(collection), tombstones_name(collection)):
                raw = files.collection(name)
                if raw is not None:
                    problems += _collection(files, raw)
            problems += _both(files, collection)
            problems += _leftovers(folder, files)
    except UnknownLayout as error:
        problems.append(Problem("layout", str(error)))
    except StoreDamaged as error:
        problems.append(Problem("database", str(error)))
    return problems


def _unfinished(folder: ChromaFolder) -> Iterator[Problem]:
    writer = folder.lock.writer()
    if writer is not None:
        yield Problem("unfinished", f"{writer} ended in mid-write.")
    if folder.journal.exists():
        yield Problem("unfinished", "A batch was begun and not completed.")
    if (folder.own / SWITCH).exists():
        yield Problem("unfinished", "A change of collections was begun and not completed.")
    rebuilds = folder.own / REBUILD
    if rebuilds.exists():
        names = sorted(path.name for path in rebuilds.iterdir())
        yield Problem("unfinished", "An index is being built anew.", len(names), names)
    for refused in sorted(folder.own.glob("refused-*.jsonl")):
        yield Problem(
            "leftover", f"A batch that Chroma refused is kept in {refused.name}.", 1, [refused.name]
        )


def _collection(files: ChromaFiles, raw: RawCollection) -> Iterator[Problem]:
    if OURS not in raw.metadata:
        yield Problem("foreign", f"Another program made the collection {raw.name!r}.")
    behind = files.unapplied(raw)
    if behind:
        yield Problem(
            "log", f"{behind:,} calls on {raw.name!r} stand in Chroma's log only.", behind
        )
    try:
        yield from _some(
            "no vector",
            f"memories of {raw.name!r} have lost their vector",
            files.without_vector(raw),
        )
        yield from _some(
            "no row", f"vectors of {raw.name!r} belong to no memory", files.without_row(raw)
        )
        yield from _some(
            "dimensions",
            f"vectors of {raw.name!r} don't have {raw.dimension} dimensions",
            _odd(files, raw),
        )
    except StoreDamaged as error:
        yield Problem("index", f"The vector index of {raw.name!r} is damaged: {error}")


def _some(kind: str, what: str, ids: list[str]) -> Iterator[Problem]:
    if ids:
        yield Problem(kind, f"{len(ids):,} {what}.", len(ids), ids[:_EXAMPLES])


def _odd(files: ChromaFiles, raw: RawCollection) -> list[str]:
    return [
        record.id
        for batch in files.read(raw)
        for record in batch
        if record.vector is not None and record.vector.size != raw.dimension
    ]


def _both(files: ChromaFiles, collection: str) -> Iterator[Problem]:
    found = [files.collection(name) for name in (collection, pending_name(collection))]
    main, pending = (set(files.ids(raw)) if raw else set() for raw in found)
    yield from _some(
        "both", "memories stand twice, with a vector and without", sorted(main & pending)
    )


def _leftovers(folder: ChromaFolder, files: ChromaFiles) -> Iterator[Problem]:
    names = [path.name for path in _ownerless(folder.path, files)]
    if names:
        yield Problem(
            "leftover", f"{len(names)} index folders belong to no collection.", len(names), names
        )


def _ownerless(folder: Path, files: ChromaFiles) -> list[Path]:
    """Folders of index files, and nothing else, that no collection owns."""
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


def repair(folder: ChromaFolder, collection: str) -> list[str]:
    """Mend what `check` finds; the lock is in hand. It can be killed and run again.

    Returns:
        What was done, in sentences.

    Raises:
        StoreDamaged: the database itself is damaged: `rescue` what can be read.
        StoreError: the layout is not known, or the collection can't be written to.
        NoSpace: mending takes more space than there is.
    """
    before = len(folder.notes)
    recover(folder)
    done = folder.notes[before:]
    if not folder.exists:
        return done
    for name in (collection, pending_name(collection), tombstones_name(collection)):
        raw = folder.raw(name)
        if raw is None:
            continue
        with folder.at_risk():
            folder.catch_up(name)
            done += _mend(folder, raw)
    with folder.at_risk():
        done += _mend_doubles(folder, collection)
    files = folder.files()
    if not isinstance(files, ApiFiles):
        for path in _ownerless(folder.path, files):
            shutil.rmtree(path)
            done.append(f"The index folder {path.name}, which belonged to nothing, was removed.")
    return done


def _mend(folder: ChromaFolder, raw: RawCollection) -> list[str]:
    kinds = {problem.kind for problem in _collection(folder.files(), raw)}  # type: ignore[arg-type]
    done: list[str] = []
    if kinds & {"index", "no row", "no vector", "dimensions"}:
        folder.close()
        with SalvagedFiles(folder.path) as salvaged:
            done.append(rebuild(folder, raw, salvaged))
    with ChromaFiles(folder.path, on_index_damage=log_only) as files:
        lost = files.without_vector(raw)
        batches = list(files.read(raw, lost, vectors=False))
    for batch in batches:
        if raw.name.endswith(tombstones_name("")):
            main = raw.name.removesuffix(tombstones_name(""))
            change = Change(forget={r.id: r.metadata[DELETED] for r in batch})
        else:
            main = raw.name.removesuffix(pending_name(""))
            change = Change([to_entry(r.id, r.document, r.metadata, None) for r in batch])
        carry_out(folder, Batch(main, change))
    if lost and not raw.name.endswith(tombstones_name("")):
        done.append(
            f"{len(lost):,} memories of {raw.name!r} have lost their vector for good and are kept "
            "without one; embed them again."
        )
    return done


def _mend_doubles(folder: ChromaFolder, collection: str) -> list[str]:
    files = folder.files()
    assert isinstance(files, ChromaFiles)  # noqa: S101
    doubles = list(_both(files, collection))
    if not doubles:
        return []
    pending = folder.raw(pending_name(collection))
    main = folder.raw(collection)
    assert pending is not None  # noqa: S101 - it has some of them
    assert main is not None  # noqa: S101
    ids = sorted(set(files.ids(main)) & set(files.ids(pending)))
    folder.shield(pending.name)
    folder.at_name(pending.name).delete(ids)
    return [f"{len(ids):,} memories stood twice; those with a vector were kept."]
