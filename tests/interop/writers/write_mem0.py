"""Writes a Chroma store with mem0, and prints what get_all returns."""

import json
import os
import sys

os.environ["MEM0_TELEMETRY"] = "False"
os.environ["MEM0_DIR"] = sys.argv[1] + "-mem0"
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
            "config": {"collection_name": "anything", "path": sys.argv[1]},
        },
        "history_db_path": sys.argv[1] + "-history.db",
    }
)
owners = [
    ("Prefers dark mode.", {"user_id": "alice"}),
    ("Deploys run from release.", {"user_id": "alice", "agent_id": "bot"}),
    ("Zürich\nhas two lines.", {"user_id": "bob"}),
    ("To be deleted.", {"user_id": "bob"}),
]
ids = []
for text, owner in owners:
    ids += [r["id"] for r in memory.add(text, infer=False, **owner)["results"]]
memory.update(ids[0], data="Prefers light mode.")
memory.delete(ids[3])
found = {}
for user in ("alice", "bob"):
    for row in memory.get_all(filters={"user_id": user})["results"]:
        found[row["id"]] = {
            "id": row["id"],
            "text": row["memory"],
            "created": row["created_at"],
            "updated": row["updated_at"],
            "instance": f"mem0:{user}",
        }
print(json.dumps({"memories": list(found.values())}))
