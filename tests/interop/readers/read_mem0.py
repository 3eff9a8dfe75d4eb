"""Adds the records of an export with mem0, and prints what get_all returns."""

import json
import os
import sys
from pathlib import Path

os.environ["MEM0_TELEMETRY"] = "False"
os.environ["MEM0_DIR"] = sys.argv[2] + "-mem0"
os.environ["OPENAI_API_KEY"] = "none"

from mem0 import Memory
from mem0.utils import factory


class Embedder:
    """Numbers from the characters of a text."""

    config = None

    def embed(self, text, memory_action=None):
        return [(sum(map(ord, text)) * n % 97) / 97 for n in range(1, 9)]

    def embed_batch(self, texts, memory_action=None):
        return [self.embed(text) for text in texts]


factory.EmbedderFactory.create = classmethod(lambda *_args, **_kwargs: Embedder())
memory = Memory.from_config(
    {
        "vector_store": {
            "provider": "chroma",
            "config": {"collection_name": "anything", "path": sys.argv[2]},
        },
        "history_db_path": sys.argv[2] + "-history.db",
    }
)
for record in json.loads(Path(sys.argv[1]).read_text())["results"]:
    memory.add(record["memory"], infer=False, user_id=record.get("user_id", "default"))
rows = [
    row
    for user in ("alice", "default")
    for row in memory.get_all(filters={"user_id": user})["results"]
]
print(json.dumps({"texts": [row["memory"] for row in rows]}))
