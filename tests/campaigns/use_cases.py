"""The calls of a use case that a campaign makes fail or kills, and what is there afterwards."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import anyio

from tests.campaigns import power
from tests.campaigns.failing_calls import report_calls
from tests.campaigns.processes import ask
from tests.campaigns.work import DIMENSIONS
from tests.support.examples import memory
from tribal_mcp.config import load
from tribal_mcp.errors import TribalError
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.manifest import EmbeddingManifest
from tribal_mcp.services.context import Context, Progress
from tribal_mcp.services.jobs import run as run_job
from tribal_mcp.services.maintenance import copy_store, undo
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.restore_points import RestorePoints

_FORGOTTEN = [f"memory-{n}" for n in range(10, 40)]
OPERATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "import": ("import", {"conflict_resolution": "overwrite", "embedding_strategy": "keep"}),
    "export": ("export", {"overwrite": True}),
    "undo": ("undo", {}),
    "forget": ("forget", {"ids": _FORGOTTEN}),
    "reembed": ("reembed", {"all": True}),
    "repair": ("check", {"repair": True}),
}
FURTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "copy": ("copy", {"overwrite": True}),
    "since": ("export", {"overwrite": True, "allow_smaller": True}),
}
BATCH = 20
"""Memories in a batch of an undo or a copy that is killed."""


@dataclass(slots=True)
class Answer:
    """How a call ended: with a result, or with an error in words."""

    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    message: str = ""


@dataclass(slots=True)
class Found:
    """What is in a store, and what is wrong with it."""

    held: power.Held
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Place:
    """A store and a bundle in one folder, as they are before each run."""

    folder: Path
    environment: dict[str, str]
    name: str
    arguments: dict[str, Any]

    @classmethod
    def new(cls, folder: Path, name: str, arguments: dict[str, Any], **settings: str) -> Self:
        """The place of a use case, prepared in its own process."""
        folder.mkdir()
        places = {
            "TRIBAL_DATA_DIR": str(folder / "store"),
            "TRIBAL_BUNDLE_DIRS": str(folder / "bundles"),
        }
        place = cls(folder, settings | places, name, dict(arguments))
        place.arguments.update(ask(prepared, place))
        return place

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundles" / "some.json"


def call(
    environment: dict[str, str],
    name: str,
    arguments: dict[str, Any],
    progress: Progress = lambda _percent, _message: None,
) -> Answer:
    """Carry out a use case as the command line does."""
    os.environ.update(environment)
    settings, limits = load()
    context = Context(settings, limits, progress, trusted=True)
    try:
        result = anyio.run(run_job, context, name, arguments)
    except TribalError as error:
        return Answer(error=type(error).__name__, message=str(error))
    return Answer(result.model_dump())


def call_and_fail(_report: object, place: Place, address: str) -> Answer:
    """The same, and a supervisor decides which system call fails."""
    report_calls(address)
    return call(place.environment, place.name, place.arguments)


def call_in_batches(report: Callable[[object], None], place: Place) -> Answer:
    """The same in small batches; each is reported once it is acknowledged."""
    undo.STEP = copy_store.STEP = BATCH  # type: ignore[attr-defined]
    return call(
        place.environment,
        place.name,
        place.arguments,
        lambda _percent, message: report(("progress", message)),
    )


def order(_report: object, place: Place) -> list[str]:
    """The ids that an undo or a copy changes, in its order; those that are deleted at once."""

    async def run() -> list[str]:
        if place.name == "copy":
            async with ChromaStore(place.folder / "source") as source:
                return await source.list_ids()
        async with ChromaStore(place.store) as store:
            points = RestorePoints.of(store)
            assert points is not None
            return [saved.id for saved in points.before(points.find(place.arguments["point"]))]

    if place.name in ("undo", "copy"):
        return anyio.run(run)
    return list(place.arguments.get("ids", ()))


def find(_report: object, place: Place) -> Found:
    """What is in the store."""

    async def run() -> Found:
        async with ChromaStore(place.store) as store:
            held = await power.held(store)
            held.tombstones = dict.fromkeys(held.tombstones, 0)
            unsound = [p.message for p in await store.check() if not p.harmless]
            return Found(held, unsound)

    return anyio.run(run)


def find_and_repeat(report_: object, place: Place) -> tuple[Found, Answer, Found]:
    """What is in the store, what the same call again says, and what is there then."""
    first = find(report_, place)
    return first, call(place.environment, place.name, place.arguments), find(report_, place)


def prepared(_report: object, place: Place) -> dict[str, Any]:
    """Make what the operation needs; its further arguments."""
    power.prepare(place.store)
    entries = [memory(n, DIMENSIONS, content="imported") for n in range(60, 130)]
    place.bundle.parent.mkdir()
    with place.bundle.open("wb") as file:
        writer = BundleWriter(file, EmbeddingManifest(power.MODEL, len(entries)))
        writer.write(entries)
        writer.finish()
    bundle = {"input_path": str(place.bundle)}
    match place.name:
        case "import":
            return bundle
        case "export" if "allow_smaller" in place.arguments:  # since an earlier bundle
            earlier = str(place.bundle.with_name("earlier.json"))
            call(place.environment, "export", {"output_path": earlier})
            call(place.environment, "import", OPERATIONS["import"][1] | bundle)
            return {"output_path": str(place.bundle), "since": earlier}
        case "export":
            return {"output_path": str(place.bundle)}
        case "copy":
            source = ChromaStore(place.folder / "source")
            anyio.run(_fill_source, source)
            return {"source": str(source.own_folder.parent)}
        case "undo":
            imported = call(place.environment, "import", OPERATIONS["import"][1] | bundle)
            return {"point": imported.result["restore_point"]}
        case "check":
            for labels in place.store.glob("*/index_metadata.pickle"):
                labels.write_bytes(labels.read_bytes()[:200])
    return {}


async def _fill_source(source: ChromaStore) -> None:
    async with source:
        await source.set_identity(power.MODEL)
        await source.upsert(
            [
                memory(n, DIMENSIONS, content="from the other store")
                if n % 10
                else memory(n, content="from the other store", embedding=None)
                for n in range(50, 150)
            ]
        )
        await source.delete(["memory-149", "memory-10"])
