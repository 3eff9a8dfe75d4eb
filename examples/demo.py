"""The main job, from end to end: memories of one agent, moved into the store of another.

A fresh folder gets a sample of memories. Everything after that goes through the real server, over
stdio, as an MCP client such as Claude Code would do it: export by tag, preview, import into a
second store, and the same export from there.
"""

import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from mcp import Client, StdioServerParameters
from rich.console import Console
from rich.table import Table

from tribal_mcp import MemoryEntry, create_embedding_metadata, open_store

SAMPLE = [
    ("Prefers short answers with the conclusion first", ["preferences"]),
    ("The deploy branch is called `release`, never `main`", ["work"]),
    ("Staging was moved to Zürich in January", ["work"]),
    ("Writes British English in documents", ["preferences", "work"]),
    ("The cat is called 豆腐 (Tofu)", ["home"]),
    ("Invoices go out on the last Friday of the month", ["work"]),
]
MODEL = create_embedding_metadata("demo-model", 64, "made up")
console = Console(highlight=False)


def memories() -> list[MemoryEntry]:
    """The sample, with made-up vectors: no embedding model is needed to move memories."""
    begin = datetime(2026, 1, 12, 9, tzinfo=UTC)
    vectors = np.random.default_rng(7).normal(size=(len(SAMPLE), MODEL.dimensions))
    return [
        MemoryEntry(
            id=f"demo-{number}",
            content=content,
            embedding=vector / np.linalg.norm(vector),
            source_instance="claude-code",
            created_at=begin + timedelta(days=number),
            tags=tags,
        )
        for number, ((content, tags), vector) in enumerate(zip(SAMPLE, vectors, strict=True), 1)
    ]


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
    """Call a tool and give its structured result."""
    shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    console.print(f"\n[bold]{tool}[/bold]({shown})", soft_wrap=True)
    result = await client.call_tool(tool, arguments)
    if result.is_error or result.structured_content is None:
        raise SystemExit(f"{tool} failed: {result.content}")
    return dict(result.structured_content)


def show(result: dict[str, Any], *names: str) -> None:
    """Print some fields of a result as a table."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name in names:
        table.add_row(name, str(result[name]))
    console.print(table)


async def main() -> None:
    """Run it in a temporary folder, which is removed at the end."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        async with open_store(folder / "first") as store:
            await store.set_identity(MODEL)
            await store.upsert(memories())
        console.print(f"A store with {len(SAMPLE)} memories of one agent.")

        async with AsyncExitStack() as stack:
            first, second = [
                await stack.enter_async_context(
                    Client(
                        StdioServerParameters(
                            command=sys.executable,
                            args=["-m", "tribal_mcp"],
                            env={
                                "TRIBAL_DATA_DIR": str(folder / name),
                                "TRIBAL_BUNDLE_DIRS": scratch,
                            },
                            cwd=scratch,
                        )
                    )
                )
                for name in ("first", "second")
            ]
            counts = ("total", "imported", "skipped", "overwritten", "errors", "next_step")
            made = await call(first, "tribal_export", tags=["work"], output_path="work.json")
            show(made, "memory_count", "filters", "bytes", "sha256")
            show(await call(second, "tribal_import", input_path="work.json", dry_run=True), *counts)
            show(await call(second, "tribal_import", input_path="work.json"), *counts)
            show(await call(second, "tribal_import", input_path="work.json"), *counts)
            again = await call(second, "tribal_export", output_path="again.json")
            show(again, "memory_count", "sha256")
        if made["sha256"] != again["sha256"]:
            raise SystemExit("The second store does not hold what the first one gave.")
        console.print(
            f"\nBoth bundles hold the same {made['memory_count']} memories, vectors and all, "
            "byte for byte."
        )


if __name__ == "__main__":
    anyio.run(main)
