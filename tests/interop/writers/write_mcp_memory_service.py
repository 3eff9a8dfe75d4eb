"""Writes a database with mcp-memory-service's storage, and prints what it returns."""

import asyncio
import json
import sys
from pathlib import Path

from mcp_memory_service.models.memory import Memory
from mcp_memory_service.storage.sqlite_vec import SqliteVecMemoryStorage
from mcp_memory_service.sync.exporter import MemoryExporter
from mcp_memory_service.utils.hashing import generate_content_hash

SqliteVecMemoryStorage._generate_embedding = lambda self, text: [
    (sum(map(ord, text)) * n % 97 + 1) / 97 for n in range(1, self.embedding_dimension + 1)
]


def memory(text, tags, created):
    return Memory(
        text, generate_content_hash(text), tags, "note", {"source": "test"}, None, created
    )


async def write(folder):
    folder.mkdir()
    storage = SqliteVecMemoryStorage(str(folder / "sqlite_vec.db"))
    await storage.initialize()
    texts = [
        memory("The deploy branch is called release.", ["deploy", "infra"], 1788220800.25),
        memory("Staging lies in Zürich.", ["infra"], 1788307200.5),
        memory("To be deleted.", ["infra"], 1788307200.5),
    ]
    for one in texts:
        done, reason = await storage.store(one, skip_semantic_dedup=True)
        assert done, reason
    await storage.delete(texts[2].content_hash)
    done, reason, newer = await storage.update_memory_versioned(
        texts[1].content_hash, "Staging lies in Bern."
    )
    assert done, reason
    rows = storage.conn.execute(
        "SELECT content_hash, content, tags, created_at, updated_at FROM memories"
        " WHERE deleted_at IS NULL"
    ).fetchall()
    found = [
        {
            "id": identity,
            "text": text,
            "tags": tags.split(","),
            "created": created,
            "updated": updated,
            "supersedes": texts[1].content_hash if identity == newer else None,
            "vector": True,
        }
        for identity, text, tags, created, updated in rows
    ]
    if len(sys.argv) > 2:
        await MemoryExporter(storage).export_to_json(Path(sys.argv[2]))
    return {"memories": found, "deleted": [texts[2].content_hash]}


print(json.dumps(asyncio.run(write(Path(sys.argv[1])))))
