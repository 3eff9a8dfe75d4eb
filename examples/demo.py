"""Exports memories from one agent's store and imports them into another agent's store.

The first store is filled with sample memories. Everything else goes through real servers over
stdio, as an MCP client such as Claude Code does it: export by tag, preview, import into the second
store, and export the same memories from there.
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


def sample() -> list[MemoryEntry]:
    """The sample, with invented vectors: moving memories needs no embedding model."""
    begin = datetime(2026, 1, 12, 9, tzinfo=UTC)
    places = np.arange(MODEL.dimensions, dtype=np.float32)
    return [
        MemoryEntry(
            id=f"demo-{number}",
            content=content,
            embedding=(number * places % 17 - 8) / np.float32(8),
            source_instance="claude-code",
            created_at=begin + timedelta(days=number),
            tags=tags,
        )
        for number, (content, tags) in enumerate(SAMPLE, 1)
    ]


async def fill(folder: Path) -> None:
    """Write the sample to the store in that folder."""
    async with open_store(folder) as store:
        await store.set_identity(MODEL)
        await store.upsert(sample())


def say(text: str) -> None:
    """Print a paragraph."""
    print(f"\n{text}")


async def call(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    """Call a tool, print the call and its result, and return the result."""
    print(f"  {tool}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})")
    result = await client.call_tool(tool, arguments)
    answer: dict[str, Any] | None = result.structured_content
    if result.is_error or answer is None:
        raise SystemExit(f"{tool} failed: {result.content}")
    if tool == "tribal_export":
        print(f"    {answer['memory_count']} memories, {answer['bytes']:,} bytes")
        print(f"    sha256 {answer['sha256']}")
    else:
        counts = {"imported": "new", "overwritten": "overwritten", "skipped": "skipped"}
        print("    " + ", ".join(f"{answer[name]} {word}" for name, word in counts.items()))
        print(f"    {answer['next_step']}")
    return answer


async def main() -> None:
    """Run the demo in a temporary folder, which is removed at the end."""
    with tempfile.TemporaryDirectory() as scratch:

        def server(store: str) -> Client:
            settings = {"TRIBAL_DATA_DIR": f"{scratch}/{store}", "TRIBAL_BUNDLE_DIRS": scratch}
            command = ["-m", "tribal_mcp"]
            return Client(
                StdioServerParameters(
                    command=sys.executable, args=command, env=settings, cwd=scratch
                )
            )

        await fill(Path(scratch, "first"))
        async with AsyncExitStack() as stack:
            first, second = [
                await stack.enter_async_context(server(name)) for name in ("first", "second")
            ]
            say(f"One agent has {len(SAMPLE)} memories. Export those tagged 'work' to a bundle:")
            made = await call(first, "tribal_export", tags=["work"], output_path="work.json")
            say("Another agent has an empty store. Preview the import:")
            await call(second, "tribal_import", input_path="work.json", dry_run=True)
            say("Import the bundle:")
            await call(second, "tribal_import", input_path="work.json")
            say("Importing it again changes nothing:")
            await call(second, "tribal_import", input_path="work.json")
            say("Export everything from the second store:")
            again = await call(second, "tribal_export", output_path="again.json")
    if made["sha256"] != again["sha256"]:
        raise SystemExit("The two bundles differ.")
    say(f"Both bundles have the same {made['memory_count']} memories and vectors, byte for byte.")


if __name__ == "__main__":
    anyio.run(main)
