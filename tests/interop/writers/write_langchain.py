"""Writes a store with langchain-chroma, and prints what its API returns."""

import json
import sys

from langchain_chroma import Chroma
from langchain_core.embeddings import DeterministicFakeEmbedding

TEXTS = ["Prefers dark mode.", "Deploys run from release.", "Zürich\nhas two lines.", ""]
METADATAS = [
    {"topic": "preference", "created_at": "2026-01-15T10:30:00+02:00"},
    {"page": 3, "created_at": 1788220800},
    {},
    {"empty": True},
]

stores = [
    Chroma(name, DeterministicFakeEmbedding(size=8), sys.argv[1]) for name in ("notes", "others")
]
ids = stores[0].add_texts(TEXTS, METADATAS)
stores[0].add_texts(["to be deleted"], ids=["gone"])
stores[0].delete(["gone"])
stores[1].add_texts(["in another collection"], ids=[ids[0]])
found = []
for store in stores:
    records = store.get(include=["documents", "metadatas", "embeddings"])
    for record_id, text, vector in zip(
        records["ids"], records["documents"], records["embeddings"], strict=True
    ):
        if text:
            found.append({"id": record_id, "text": text, "vector": list(map(float, vector))})
found[-1]["id"] = None  # the same id in another collection
print(json.dumps({"left_out": 1, "memories": found}))
