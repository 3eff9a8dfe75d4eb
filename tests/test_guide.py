"""The users' guide, where it is at hand, runs as it stands, package name apart."""

import ast
import asyncio
import inspect
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.examples import memory
from tribal_mcp import open_store
from tribal_mcp.portability.embedding_metadata import create_embedding_metadata
from tribal_mcp.services.import_export import entry_to_dict
from tribal_mcp.stores.base import MemoryStore

GUIDE = Path(__file__).parents[2] / "shared" / "GUIDE.md"
DIMENSIONS = 1536


def blocks() -> list[str]:
    """The guide's Python blocks, with our package's name."""
    if not GUIDE.exists():
        return []
    found = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return [block.replace("tribalmemory", "tribal_mcp") for block in found]


async def run(block: str, names: dict[str, Any]) -> None:
    """Run a block, which may await at its top level."""
    code = compile(block, "GUIDE.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)  # noqa: S307 - the guide is ours
    if inspect.isawaitable(result):
        await result


async def stock(store: MemoryStore) -> None:
    await store.set_identity(create_embedding_metadata("text-embedding-3-small", DIMENSIONS))
    now = datetime.now(UTC)
    await store.upsert(
        [
            memory(n, DIMENSIONS, tags=["work"], created_at=now - timedelta(hours=n + 1))
            for n in range(25)
        ]
    )


@pytest.mark.skipif(not GUIDE.exists(), reason="the guide does not lie beside this project")
def test_every_block_of_the_guide_runs_on_a_real_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    async def go() -> None:
        async with open_store("first") as store, open_store("second") as other:
            await stock(store)
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
