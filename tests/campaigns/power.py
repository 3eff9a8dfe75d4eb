"""Programs whose power is cut: `python -m tests.campaigns.power NAME FOLDER OUT` runs one.

Each is a list of steps on a store. After a step has been acknowledged, the program writes what the
store now holds to `OUT/<number>` and its number to `OUT/steps.marks`.
"""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import anyio
import numpy as np

from tests.campaigns.work import DIMENSIONS
from tests.support.embedders import BagOfWords
from tests.support.examples import memory
from tribal_mcp import MemoryEntry, PortableBundle, import_memories, undo
from tribal_mcp.errors import UsageError
from tribal_mcp.portability.embedding_metadata import EmbeddingManifest, create_embedding_metadata
from tribal_mcp.services.embedders import Work
from tribal_mcp.services.import_export import ConflictResolution, ReembeddingStrategy, entry_to_dict
from tribal_mcp.services.maintenance.change_model import change_model
from tribal_mcp.services.maintenance.copy_store import copy_store
from tribal_mcp.services.results.maintenance import CopyResult, ReembedResult
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.in_memory import InMemoryStore
from tribal_mcp.stores.restore_points import RestorePoints

SYNC_THRESHOLD = 40
"""Chroma writes the index after so many changes, so that a short program has it written often."""
MODEL = create_embedding_metadata("power", DIMENSIONS, "tests")


@dataclass(slots=True)
class Held:
    """What a store holds.

    Attributes:
        memories: the JSON form of each memory by id, its vector included.
        tombstones: when each was deleted.
        points: the restore points that can be undone, and what each would restore.
    """

    memories: dict[str, str] = field(default_factory=dict)
    tombstones: dict[str, int] = field(default_factory=dict)
    points: dict[str, list[str]] = field(default_factory=dict)


async def held(store: ChromaStore) -> Held:
    """What the store holds."""
    async with store.session():
        ids = await store.list_ids()
        memories = {
            i: json.dumps(entry_to_dict(entry), sort_keys=True, default=str)
            for i, entry in (await store.get_many(ids)).items()
        }
        points = RestorePoints.of(store)
        assert points is not None
        return Held(
            memories,
            await store.forgotten(),
            {p.id: sorted(s.id for s in points.before(p)) for p in points.all() if not p.emptied},
        )


def prepare(folder: Path, space: str = "l2", *, ours: bool = True) -> None:
    """A store with 100 memories, some without a vector, and a tombstone."""
    import chromadb  # noqa: PLC0415

    folder.mkdir(mode=0o700)
    hnsw = {"space": space, "sync_threshold": SYNC_THRESHOLD}
    client = chromadb.PersistentClient(folder)
    for name in ("memories", "memories.pending", "memories.forgotten"):
        if ours or name == "memories":
            client.create_collection(
                name,
                embedding_function=None,
                configuration=cast("Any", {"hnsw": hnsw}),
                metadata={"tribal_layout": 1} if ours else None,
            )
    client.close()  # type: ignore[attr-defined]

    async def fill() -> None:
        async with ChromaStore(folder) as store:
            await store.set_identity(MODEL)
            await store.upsert([_memory(n) for n in range(100)])
            await store.delete(["memory-3"])

    anyio.run(fill)


def prepared(_report: object, folder: Path, program: str) -> None:
    """The folder that a program starts from."""
    chosen = PROGRAMS.get(program)
    if chosen is None:
        prepare(folder)
    else:
        prepare(folder, chosen.space, ours=chosen.ours)


def _memory(number: int, **changes: Any) -> MemoryEntry:  # noqa: ANN401 - any field
    without = {"embedding": None} if number % 10 == 0 else {}
    return memory(number, DIMENSIONS, **{**without, **changes})


async def upsert(store: ChromaStore, _folder: Path) -> AsyncIterator[None]:
    """New memories, replaced ones, some gain or lose their vector."""
    for start in range(100, 240, 35):
        await store.upsert([_memory(n) for n in range(start, start + 35)])
        yield
        replaced = range(start - 60, start - 30)
        await store.upsert([memory(n, DIMENSIONS, content=f"again {start}") for n in replaced])
        yield
        await store.upsert([_memory(start, embedding=None, content="lost its vector")])
        yield


async def forget(store: ChromaStore, _folder: Path) -> AsyncIterator[None]:
    """Deletes memories, stores some of them again."""
    for start in range(10, 90, 20):
        await store.delete([f"memory-{n}" for n in range(start, start + 15)])
        yield
        await store.upsert([_memory(n) for n in range(start, start + 5)])
        yield
        await store.upsert([_memory(n) for n in range(1000 + start, 1030 + start)])
        yield


async def import_and_undo(store: ChromaStore, _folder: Path) -> AsyncIterator[None]:
    """Imports that replace half of what is there, undone again."""
    for start in (60, 130):
        entries = [_memory(n, content=f"imported {start}") for n in range(start, start + 80)]
        bundle = PortableBundle(EmbeddingManifest(MODEL, len(entries)), entries)
        await import_memories(
            bundle, store, None, ConflictResolution.OVERWRITE, ReembeddingStrategy.KEEP
        )
        yield
        await undo(store)
        yield
        await import_memories(
            bundle, store, None, ConflictResolution.OVERWRITE, ReembeddingStrategy.KEEP
        )
        yield


async def repair(store: ChromaStore, folder: Path) -> AsyncIterator[None]:
    """Repairs an index that lost its labels."""
    await store.close()
    for labels in folder.glob("*/index_metadata.pickle"):  # noqa: ASYNC240
        labels.write_bytes(labels.read_bytes()[:200])
    await store.repair()
    yield
    await store.upsert([_memory(n) for n in range(300, 345)])
    yield


async def copy(store: ChromaStore, _folder: Path) -> AsyncIterator[None]:
    """Copies another store into this one."""
    source = InMemoryStore()
    await source.set_identity(MODEL)
    await source.upsert([_memory(n, content="from the other store") for n in range(50, 220)])
    await copy_store(source, store, CopyResult(source="", target=""), overwrite=True)
    yield


async def change(store: ChromaStore, _folder: Path) -> AsyncIterator[None]:
    """Gives every memory a vector of another model, and undoes that."""
    points = RestorePoints.of(store)
    assert points is not None
    point = points.begin("reembed", "another model", model=await store.identity())
    work = Work(BagOfWords(dimensions=DIMENSIONS + 1), ReembedResult(model="another"))
    await change_model(store, work, point)
    point.finish({"embedded": work.result.embedded})
    yield
    await undo(store)
    yield


class Action(NamedTuple):
    """One step of a random program: what to do with which memories."""

    name: Literal["upsert", "replace", "strip", "delete", "import", "undo"]
    first: int
    size: int


def random_program(actions: Sequence[Action]) -> "Steps":
    """The program that does these things in order."""

    async def steps(store: ChromaStore, _folder: Path) -> AsyncIterator[None]:
        for number, (name, first, size) in enumerate(actions):
            content = f"written by step {number}"
            entries = [_memory(n, content=content) for n in range(first, first + size)]
            match name:
                case "upsert" | "replace":
                    await store.upsert(entries)
                case "strip":
                    await store.upsert([replace(e, embedding=None) for e in entries])
                case "delete":
                    await store.delete([entry.id for entry in entries])
                case "import":
                    await import_memories(
                        PortableBundle(EmbeddingManifest(MODEL, size), entries),
                        store,
                        conflict_resolution=ConflictResolution.OVERWRITE,
                        embedding_strategy=ReembeddingStrategy.KEEP,
                    )
                case "undo":
                    with suppress(UsageError):  # there may be nothing to undo
                        await undo(store)
            yield

    return steps


Steps = Callable[[ChromaStore, Path], AsyncIterator[None]]


@dataclass(frozen=True, slots=True)
class Program:
    """What runs until the power is cut.

    Attributes:
        steps: changes the store; after each step all of it is acknowledged.
        space: the distance metric of the collection.
        ours: whether this program created the collection.
        atomic: whether a step is done as a whole or not at all.
    """

    steps: Steps
    space: str = "l2"
    ours: bool = True
    atomic: bool = False


PROGRAMS = {
    "upsert": Program(upsert, atomic=True),
    "upsert, cosine": Program(upsert, space="cosine", atomic=True),
    "upsert, another program's collection": Program(
        upsert, space="cosine", ours=False, atomic=True
    ),
    "forget": Program(forget, atomic=True),
    "import and undo": Program(import_and_undo),
    "repair": Program(repair),
    "copy": Program(copy),
    "change model": Program(change),
}


async def problems(folder: Path, expected: list[Held], *, whole: bool) -> list[str]:
    """What is lost or wrong in a folder that was found after a power cut.

    Args:
        folder: the store.
        expected: what it held after the last acknowledged step, then after the one in progress.
        whole: the step in progress is done whole or not at all.
    """
    store = ChromaStore(folder)
    try:
        await store.repair()
        found = await held(store)
        unsound = [p.message for p in await store.check() if not p.harmless]
    except Exception as error:  # noqa: BLE001 - any failure is a finding
        return [f"unreadable: {type(error).__name__}: {error}"[:300]]
    finally:
        await store.close()
    wrong = [f"unsound: {message}" for message in unsound]
    wrong += differences("memory", found.memories, [e.memories for e in expected])
    wrong += differences("tombstone", found.tombstones, [e.tombstones for e in expected])
    for point, ids in expected[0].points.items():
        if point in expected[-1].points and not {*ids} <= {*found.points.get(point, ())}:
            wrong.append(f"restore point {point} lost memories")
    if (
        whole
        and not wrong
        and not any(
            found.memories.keys() == e.memories.keys()
            and all(_same(found.memories[i], e.memories[i]) for i in e.memories)
            for e in expected
        )
    ):
        wrong.append("half a step")
    return wrong


def differences(
    what: str, found: Mapping[str, object], expected: list[dict[str, Any]]
) -> list[str]:
    return [
        f"{what} {key}: {'lost' if key not in found else 'wrong'}"
        for key in sorted({*found, *expected[0]})
        if not any(_same(found.get(key), e.get(key)) for e in expected)
    ]


def _same(a: Any, b: Any) -> bool:  # noqa: ANN401 - the JSON form of a memory, or a time
    """Whether both are equal; vectors may differ as they do in a cosine index."""
    if a == b or not isinstance(a, str) or not isinstance(b, str):
        return bool(a == b)
    one, other = json.loads(a), json.loads(b)
    vectors = one.pop("embedding"), other.pop("embedding")
    if one != other or None in vectors or len(vectors[0]) != len(vectors[1]):
        return False
    return bool(np.allclose(*vectors, rtol=1e-5, atol=1e-7))


async def _steps(program: Steps, folder: Path, out: Path) -> None:
    marks = os.open(out / "steps.marks", os.O_WRONLY | os.O_CREAT)
    store = ChromaStore(folder)
    (out / "0").write_text(json.dumps(asdict(await held(store))))
    number = 0
    os.write(marks, b"0\n")
    async for _ in program(store, folder):
        number += 1
        os.write(marks, b"%d\n" % number)
        (out / str(number)).write_text(json.dumps(asdict(await held(store))))
    await store.close()
    os.write(marks, b"end\n")


if __name__ == "__main__":
    from tests.campaigns.processes import PROTECTIONS
    from tests.campaigns.protections import switch_off

    switch_off(PROTECTIONS)
    name, place, output = sys.argv[1:]
    chosen = (
        random_program([Action(*action) for action in json.loads(name)])
        if name.startswith("[")
        else PROGRAMS[name].steps
    )
    anyio.run(_steps, chosen, Path(place), Path(output))
    os._exit(0)  # nothing is written at the end of the process that was not acknowledged
