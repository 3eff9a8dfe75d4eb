"""Every argument of every tool with every wrong value: a refusal in words, and nothing changes."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult

from tests.support.mcp_client import call, settings, text_of, write_many
from tests.support.wrong_values import FOREIGN, misspelled, oversized, wrong_values
from tribal_mcp.mcp_server.server import build_server

pytestmark = pytest.mark.anyio

LEAKS = re.compile(r"Traceback|File \"|[Ee]rrno|chromadb|pydantic|Error executing|\w+Error\b|a bug")
VALID: dict[str, dict[str, Any]] = {
    "tribal_remember": {"content": "Takes tea."},
    "tribal_forget": {"ids": ["memory-0"]},
    "tribal_import": {"input_path": "new.json"},
    "tribal_recall": {"query": "memory"},
    "tribal_export": {"output_path": "out.json"},
}
"""A call of each tool that would do something, to which one wrong argument is added."""


async def state(client: Client, folder: Path) -> Any:  # noqa: ANN401 - to be compared only
    """What no refused call may change."""
    stats = await call(client, "tribal_stats")
    files = sorted(p.name for p in folder.iterdir())  # noqa: ASYNC240 - a small folder
    return stats["count"], stats["forgotten"], files


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """A client of a server whose store has four memories, and whose limits are low."""
    low = {"TRIBAL_LIMIT_CONTENT_BYTES": "100000", "TRIBAL_LIMIT_INLINE_BYTES": "100000"}
    for name, value in (settings(tmp_path) | low).items():
        monkeypatch.setenv(name, value)
    write_many(tmp_path / "some.json", 4)
    write_many(tmp_path / "new.json", 8)
    async with Client(build_server()) as client:
        await call(client, "tribal_import", input_path="some.json")
        yield client


def problem_of(result: CallToolResult) -> str:
    """What is wrong with a refusal; empty if nothing is."""
    said = text_of(result)
    if result.is_error and said.endswith(".") and len(said) < 3_000 and not LEAKS.search(said):
        return ""
    return said[:300]


async def test_no_wrong_argument_is_taken_and_nothing_changes(
    tmp_path: Path, client: Client
) -> None:
    before = await state(client, tmp_path)
    tools = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
    everything = {name for schema in tools.values() for name in schema["properties"]}
    cases: list[tuple[str, str, dict[str, Any]]] = []
    for tool, schema in tools.items():
        known = schema["properties"]
        for name, one in known.items():
            wrong = wrong_values(one)
            if name == "bundle_json":  # some clients send the bundle as an object
                wrong = (case for case in wrong if case[0] != "an object")
            cases += [(tool, f"{name} is {what}", {name: value}) for what, value in wrong]
            cases.append((tool, f"{name} is misspelled", {misspelled(name): True}))
        cases += [(tool, f"{name} is null", {name: None}) for name in schema.get("required", [])]
        for name in (everything - known.keys()) | set(FOREIGN):
            cases += [(tool, f"{name!r} is foreign", {name: v}) for v in (True, None)]
    problems = {
        f"{tool}: {what}": problem
        for tool, what, arguments in cases
        if (problem := problem_of(await client.call_tool(tool, VALID.get(tool, {}) | arguments)))
    }
    assert problems == {}, json.dumps(problems, indent=2)
    assert len(cases) > 500
    assert await state(client, tmp_path) == before


async def test_an_oversized_argument_is_refused_or_has_no_effect(
    tmp_path: Path, client: Client
) -> None:
    before = await state(client, tmp_path)
    problems: dict[str, str] = {}
    for tool in (await client.list_tools()).tools:
        for name, schema in tool.input_schema["properties"].items():
            if schema["type"] != "boolean":
                arguments = VALID.get(tool.name, {}) | {name: oversized(schema)}
                result = await client.call_tool(tool.name, arguments)
                reads = tool.annotations is not None and tool.annotations.read_only_hint
                if problem := problem_of(result):
                    problems[f"{tool.name}: {name}"] = problem
                if reads and not result.is_error:
                    del problems[f"{tool.name}: {name}"]
    assert problems == {}, json.dumps(problems, indent=2)
    assert await state(client, tmp_path) == before
