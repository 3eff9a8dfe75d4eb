"""Every argument of every use case and public function with every wrong value: nothing changes."""

import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import tribal_mcp
from tests.support.examples import memories
from tests.support.wrong_values import FOREIGN, misspelled, wrong_values
from tribal_mcp.errors import TribalError
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.manifest import EmbeddingManifest, EmbeddingMetadata
from tribal_mcp.services.jobs import JOBS
from tribal_mcp.stores.in_memory import InMemoryStore

pytestmark = pytest.mark.anyio


# Use cases


def single(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field, without a reference."""
    reference = schema.get("$ref", "").rsplit("/", 1)[-1]
    found: dict[str, Any] = definitions.get(reference, schema)
    return found


def cases_of(job: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the request of a use case refuses."""
    schema = JOBS[job][0].model_json_schema()
    known = schema.get("properties", {})
    for name, one in known.items():
        for what, value in wrong_values(single(one, schema.get("$defs", {}))):
            yield f"{name} is {what}", {name: value}
        yield f"{name} is misspelled", {misspelled(name): True}
        yield f"{name} in capitals", {name.upper(): True}
    everything = {n for request, _ in JOBS.values() for n in request.model_fields}
    for name in (everything | set(FOREIGN)) - known.keys():
        yield f"{name!r} is foreign", {name: True}
        yield f"{name!r} is foreign, and null", {name: None}


@pytest.mark.parametrize("job", JOBS)
def test_the_request_of_a_use_case_takes_no_wrong_argument(job: str) -> None:
    taken = []
    for what, arguments in cases_of(job):
        try:
            JOBS[job][0](**arguments)
        except ValidationError:
            continue
        taken.append(what)
    assert taken == []


# Public functions

BUNDLE = PortableBundle(EmbeddingManifest(EmbeddingMetadata("model-a", 8, "tests")), memories(3))
VALUES: dict[str, Any] = {
    "none": None, "true": True, "zero": 0, "minus one": -1, "a fraction": 1.5, "nan": float("nan"),
    "text": "x", "no text": "", "bytes": b"x", "a list": ["x"], "a dict": {"x": 1}, "a set": {1},
    "a class": object, "an object": object(), "a function": lambda *_: None, "a path": Path("x"),
    "a date": datetime(2026, 1, 1), "half a surrogate pair": "\ud800", "huge": 10**30,  # noqa: DTZ001
}  # fmt: skip
CALLS: dict[str, dict[str, Any]] = {
    "export_memories": {"store": None},
    "export_memories_streaming": {"store": None},
    "import_memories": {"bundle": BUNDLE, "store": None, "dry_run": True},
    "undo": {"store": None, "dry_run": True},
    "sync": {"store": None, "folder": "shared", "dry_run": True},
    "create_embedding_metadata": {"model_name": "m", "dimensions": 3},
    "open_store": {"path": "store"},
    "ExportFilter": {},
}
"""The public functions, with arguments that change nothing; None is the store."""


def test_every_public_function_is_in_the_matrix() -> None:
    values = {"ConflictResolution", "ReembeddingStrategy", "MemorySource", "Secrets", "TribalError"}
    made_by_functions = {"ImportSummary", "MemoryEntry", "PortableBundle"}
    assert set(tribal_mcp.__all__) == CALLS.keys() | values | made_by_functions


async def call(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Call a function to its end, whatever kind it is."""
    result = function(**arguments)
    if isinstance(result, AsyncIterator):
        async for _ in result:
            pass
    elif inspect.isawaitable(result):
        await result


@pytest.mark.parametrize("name", CALLS)
async def test_a_public_function_refuses_wrong_arguments_in_words(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = InMemoryStore()
    await tribal_mcp.import_memories(BUNDLE, store)
    before = await store.list_ids()
    function = getattr(tribal_mcp, name)
    right = {k: store if k == "store" else v for k, v in CALLS[name].items()}
    problems = {}
    for parameter in inspect.signature(function).parameters:
        for what, value in VALUES.items():
            if (parameter, what) in (("dry_run", "none"), ("on_progress", "a class")):
                continue  # not given, so not a dry run; and what can be called is called
            try:
                await call(function, right | {parameter: value})
            except TribalError as error:
                if not str(error).endswith((".", "?")) or len(str(error)) > 500:
                    problems[f"{parameter} is {what}"] = str(error)
            except Exception as error:  # noqa: BLE001 - any other exception is a finding
                problems[f"{parameter} is {what}"] = f"{type(error).__name__}: {error}"[:200]
    assert problems == {}, json.dumps(problems, indent=2)
    assert await store.list_ids() == before
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a small folder


@pytest.mark.parametrize("what", VALUES)
def test_only_an_object_that_is_a_bundle_is_read(what: str) -> None:
    with pytest.raises(TribalError):
        PortableBundle.from_dict(VALUES[what])
