"""Opens an export with the MCP reference memory server, changes it there, and reads it."""

import json
import shutil
import sys
from pathlib import Path

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def read(export: Path, folder: Path, server: str) -> None:
    folder.mkdir()
    shutil.copy(export, folder / "memory.jsonl")
    parameters = StdioServerParameters(
        command="node", args=[server], env={"MEMORY_FILE_PATH": str(folder / "memory.jsonl")}
    )
    async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
        await session.initialize()
        await session.call_tool(  # which has the server write the file anew
            "create_entities", {"entities": [{"name": "x", "entityType": "x", "observations": []}]}
        )
        await session.call_tool("delete_entities", {"entityNames": ["x"]})
        graph = await session.call_tool("read_graph", {})
    found = json.loads(graph.content[0].text)
    texts = [text for entity in found["entities"] for text in entity["observations"]]
    print(json.dumps({"texts": texts, "store": "memory.jsonl"}))


anyio.run(read, Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
