"""Imports an export with mcp-memory-service's own importer, into a database that is then read."""

import asyncio
import json
import sys
from pathlib import Path

from mcp_memory_service.storage.sqlite_vec import SqliteVecMemoryStorage
from mcp_memory_service.sync.importer import MemoryImporter

SqliteVecMemoryStorage._generate_embedding = lambda self, text: [
    (sum(map(ord, text)) * n % 97 + 1) / 97 for n in range(1, self.embedding_dimension + 1)
]


async def read(export, folder):
    folder.mkdir()
    storage = SqliteVecMemoryStorage(str(folder / "sqlite_vec.db"))
    await storage.initialize()
    stats = await MemoryImporter(storage).import_from_json([export], add_source_tags=False)
    assert not stats["errors"], stats
    rows = storage.conn.execute("SELECT content FROM memories WHERE deleted_at IS NULL").fetchall()
    return {"texts": [row[0] for row in rows], "store": "sqlite_vec.db"}


print(json.dumps(asyncio.run(read(Path(sys.argv[1]), Path(sys.argv[2])))))
