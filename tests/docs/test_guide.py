"""TribalMemory's users' guide, if present, runs unchanged except for the package name.

The tool calls in it and in our own guide are sent to a real server.
"""

import ast
import asyncio
import inspect
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.examples import memory
from tests.support.mcp_client import call, connected
from tribal_mcp import open_store
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.services.import_export import entry_to_dict
from tribal_mcp.stores.base import MemoryStore

OURS = Path(__file__).parents[2] / "docs" / "guide.md"
GUIDE = Path(__file__).parents[3] / "shared" / "GUIDE.md"
DIMENSIONS = 1536


def blocks() -> list[str]:
    """Return the guide's Python blocks, with our package name."""
    if not GUIDE.exists():
        return []
    found = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return [block.replace("tribalmemory", "tribal_mcp") for block in found]


async def run(block: str, names: dict[str, Any]) -> None:
    """Run a block that may use await at its top level."""
    code = compile(block, "GUIDE.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)  # noqa: S307 - our own guide
    if inspect.isawaitable(result):
        await result


async def fill(store: MemoryStore) -> None:
    await store.set_identity(create_embedding_metadata("text-embedding-3-small", DIMENSIONS))
    now = datetime.now(UTC)
    await store.upsert(
        [
            memory(n, DIMENSIONS, tags=["work"], created_at=now - timedelta(hours=n + 1))
            for n in range(25)
        ]
    )


@pytest.mark.skipif(not GUIDE.exists(), reason="the guide is not next to this project")
def test_every_python_block_of_the_guide_runs_on_a_real_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    async def go() -> None:
        async with open_store("first") as store, open_store("second") as other:
            await fill(store)
            names: dict[str, Any] = {
                "store": store,
                "vector_store": store,
                "target_store": other,
                "entry_to_dict": entry_to_dict,  # used there without an import
            }
            for block in blocks():
                await run(block, names)
            assert await other.count() == 25
            assert await other.get("memory-7") == await store.get("memory-7")

    assert len(blocks()) >= 9
    asyncio.run(go())
    printed = capsys.readouterr().out
    assert "Imported: 25" in printed
    assert "25/25 (100%)" in printed
    assert "Would skip:      25" in printed
    assert len((tmp_path / "export.jsonl").read_text().splitlines()) == 25


def tool_calls(page: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the tool calls in the page's code block that has no language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    [block] = [block for language, block in found if not language]
    return [
        (ast.unparse(node.func), {str(k.arg): ast.literal_eval(k.value) for k in node.keywords})
        for node in ast.walk(ast.parse(block.replace("=true", "=True")))
        if isinstance(node, ast.Call)
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("page", [OURS, *([GUIDE] if GUIDE.exists() else [])], ids=lambda p: p.name)
async def test_the_tool_calls_in_a_guide_export_preview_and_import(
    page: Path, tmp_path: Path
) -> None:
    async with open_store(tmp_path / "store") as store:
        await fill(store)
    results = []
    async with connected(tmp_path) as client:
        for tool, arguments in tool_calls(page):
            for name in arguments.keys() & {"input_path", "output_path"}:
                arguments[name] = arguments[name].replace("/tmp", str(tmp_path))  # noqa: S108 - the path in the guide
            results.append(await call(client, tool, **arguments))
    exported, preview, real, *memories = results
    assert exported["memory_count"] == preview["total"] == real["total"] == 25
    assert (preview["dry_run"], real["dry_run"]) == (True, False)
    assert (tmp_path / "work.json").exists()
    if memories:
        remembered, recalled = memories
        assert recalled["hits"][0]["id"] == remembered["id"]
