"""Writes a knowledge graph with the MCP reference memory server, run by Node.js."""

import json
import sys
from pathlib import Path

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

ENTITIES = [
    {
        "name": "Ada",
        "entityType": "person",
        "observations": ["speaks Spanish", "", "speaks Spanish"],
    },
    {"name": "Acme", "entityType": "", "observations": []},
]
RELATIONS = [{"from": "Ada", "to": "Acme", "relationType": "works_at"}]
MEMORIES = ["speaks Spanish", "lives in\nZürich", "Acme", "Ada works_at Acme"]


async def write(folder: Path, server: str) -> None:
    folder.mkdir()
    parameters = StdioServerParameters(
        command="node", args=[server], env={"MEMORY_FILE_PATH": str(folder / "memory.jsonl")}
    )
    async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
        await session.initialize()
        await session.call_tool("create_entities", {"entities": ENTITIES})
        await session.call_tool(
            "add_observations",
            {"observations": [{"entityName": "Ada", "contents": ["lives in\nZürich"]}]},
        )
        await session.call_tool("create_relations", {"relations": RELATIONS})


anyio.run(write, Path(sys.argv[1]), sys.argv[2])
print(json.dumps({"left_out": 2, "memories": [{"text": text} for text in MEMORIES]}))
