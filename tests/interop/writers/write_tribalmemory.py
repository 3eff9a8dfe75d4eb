"""Remembers, corrects, forgets and exports with tribalmemory, and prints what its store returns."""

import asyncio
import json
import sys
from pathlib import Path

from tribalmemory.portability.embedding_metadata import EmbeddingMetadata
from tribalmemory.services.import_export import export_memories
from tribalmemory.services.memory import TribalMemoryService
from tribalmemory.services.vector_store import LanceDBVectorStore
from tribalmemory.testing.mocks import MockEmbeddingService

FOLDER = Path(sys.argv[1])
MODEL = EmbeddingMetadata(model_name="mock", dimensions=1536, provider="tests")


async def main() -> None:
    FOLDER.mkdir(parents=True)
    embedder = MockEmbeddingService(skip_latency=True)
    store = LanceDBVectorStore(embedder, db_path=FOLDER.parent / "lance")
    service = TribalMemoryService("laptop", embedder, store, graph_enabled=False)
    first = await service.remember("Deploys run from the release branch only.", tags=["ops"])
    other = await service.remember("Zürich has\ntwo lines.", context="a trip")
    gone = await service.remember("Something completely unrelated to forget.")
    corrected = await service.correct(first.memory_id, "Deploys run from the main branch.")
    assert all(one.success for one in (first, other, gone, corrected))
    assert await service.forget(gone.memory_id)
    bundle = await export_memories(store, MODEL)
    (FOLDER / "bundle.json").write_text(json.dumps(bundle.to_dict(), default=str))
    found = []
    for memory_id in (first.memory_id, other.memory_id, corrected.memory_id):
        entry = await store.get(memory_id)
        found.append(
            {
                "id": entry.id,
                "text": entry.content,
                "tags": entry.tags,
                "instance": entry.source_instance,
                "created": entry.created_at.isoformat(),
                "updated": entry.updated_at.isoformat(),
                "supersedes": entry.supersedes,
                "related_to": entry.related_to,
                "vector": list(map(float, entry.embedding)),
            }
        )
    print(json.dumps({"memories": found}))


asyncio.run(main())
