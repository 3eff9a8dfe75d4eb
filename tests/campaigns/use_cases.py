"""The calls of a use case that a campaign makes fail, and what is in the store afterwards."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from tests.campaigns import power
from tests.campaigns.failing_calls import report_calls
from tests.campaigns.work import DIMENSIONS
from tests.support.examples import memory
from tribal_mcp.config import load
from tribal_mcp.errors import TribalError
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.manifest import EmbeddingManifest
from tribal_mcp.services.context import Context
from tribal_mcp.services.jobs import run as run_job
from tribal_mcp.stores.chroma.store import ChromaStore

_FORGOTTEN = [f"memory-{n}" for n in range(10, 40)]
OPERATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "import": ("import", {"conflict_resolution": "overwrite", "embedding_strategy": "keep"}),
    "export": ("export", {"overwrite": True}),
    "undo": ("undo", {}),
    "forget": ("forget", {"ids": _FORGOTTEN}),
    "reembed": ("reembed", {"all": True}),
    "repair": ("check", {"repair": True}),
}


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

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundles" / "some.json"


def call(environment: dict[str, str], name: str, arguments: dict[str, Any]) -> Answer:
    """Carry out a use case as the command line does."""
    os.environ.update(environment)
    settings, limits = load()
    try:
        result = anyio.run(run_job, Context(settings, limits, trusted=True), name, arguments)
    except TribalError as error:
        return Answer(error=type(error).__name__, message=str(error))
    return Answer(result.model_dump())


def call_and_fail(_report: object, place: Place, address: str) -> Answer:
    """The same, and a supervisor decides which system call fails."""
    report_calls(address)
    return call(place.environment, place.name, place.arguments)


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
        case "export":
            return {"output_path": str(place.bundle)}
        case "undo":
            imported = call(place.environment, "import", OPERATIONS["import"][1] | bundle)
            return {"point": imported.result["restore_point"]}
        case "check":
            for labels in place.store.glob("*/index_metadata.pickle"):
                labels.write_bytes(labels.read_bytes()[:200])
    return {}
