"""Writes a palace with MemPalace's own tools, and prints the drawers that they filed."""

import json
import os
import sys

OUTPUT = os.dup(1)  # the server sends the output of the process elsewhere
os.environ["MEMPALACE_PALACE_PATH"] = sys.argv[1]

from chromadb.utils.embedding_functions.onnx_mini_lm_l6_v2 import ONNXMiniLM_L6_V2


def vectors(self, input):
    return [[(sum(map(ord, text)) * n % 97) / 97 for n in range(1, 385)] for text in input]


ONNXMiniLM_L6_V2.__call__ = vectors

import mempalace.mcp_server as tools_write

DRAWERS = [
    ("billing", "runbook", "Deploys run from the release branch only."),
    ("home", "garden", "Zürich has\ntwo lines."),
]
found = []
for wing, room, text in DRAWERS:
    answer = tools_write.tool_add_drawer(wing, room, text)
    assert answer.get("success"), answer
    found.append(
        {
            "id": answer["drawer_id"],
            "text": text,
            "tags": [room],
            "instance": f"mempalace:{wing}",
        }
    )
os.write(OUTPUT, json.dumps({"memories": found}).encode())
