"""Exports a Chroma collection with `cdp export` of chroma-data-pipes."""

import json
import subprocess
import sys
from pathlib import Path

import chromadb

folder = Path(sys.argv[1])
folder.mkdir()
RECORDS = {
    "a": ("Deploys run from release.", {"topic": "deploy", "n": 3}, [0.5, 0.25, 1.0]),
    "b": ("Zürich has\ntwo lines.", {"topic": "city"}, [0.125, 1.0, 0.0]),
}
path = str(folder) + "-chroma"
collection = chromadb.PersistentClient(path).create_collection("notes")
collection.add(
    ids=list(RECORDS),
    documents=[text for text, _, _ in RECORDS.values()],
    metadatas=[metadata for _, metadata, _ in RECORDS.values()],
    embeddings=[vector for _, _, vector in RECORDS.values()],
)
command = [str(Path(sys.executable).parent / "cdp"), "export", f"file://{path}/notes"]
exported = subprocess.run(command, capture_output=True, check=True).stdout
(folder / "export.jsonl").write_bytes(exported)
print(
    json.dumps({"memories": [{"id": i, "text": r[0], "vector": r[2]} for i, r in RECORDS.items()]})
)
