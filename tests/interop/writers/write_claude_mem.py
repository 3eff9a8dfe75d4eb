"""Stores observations and a summary with claude-mem's own store, and prints what it holds."""

import json
import subprocess
import sys
from pathlib import Path

STORE, BUN, PACKAGE = Path(sys.argv[1]), *map(Path, sys.argv[2:4])
SCRIPT = """
const { SessionStore } = require(process.argv[3] + "/plugin/sqlite/SessionStore.js");
const store = new SessionStore(process.argv[2]);
const session = store.createSDKSession("content-1", "billing", "Fix the deploy");
store.ensureMemorySessionIdRegistered(session, "memory-1");
const empty = { subtitle: null, facts: [], concepts: [], files_read: [], files_modified: [] };
store.storeObservation("memory-1", "billing", {
  ...empty, type: "decision", title: "Deploys run from release", narrative: "Since March only.",
  facts: ["main is not deployed"], concepts: ["deploy", "rule"], files_read: ["deploy.yml"],
}, 1);
store.storeObservation("memory-1", "billing",
  { ...empty, type: "discovery", title: "Zürich", narrative: "has\\ntwo lines" }, 2);
store.storeSummary("memory-1", "billing", { request: "Fix the deploy", investigated: null,
  learned: "The branch was wrong", completed: null, next_steps: null, notes: null }, 3);
store.db.close();
"""
STORE.mkdir(parents=True)
database = STORE / "claude-mem.db"
script = STORE.parent / "write.js"
script.write_text(SCRIPT)
subprocess.run([BUN, script, database, PACKAGE], check=True, stdout=sys.stderr)
texts = {
    "Deploys run from release\n\nSince March only.\n\n- main is not deployed": ["deploy", "rule"],
    "Zürich\n\nhas\ntwo lines": [],
    "Request: Fix the deploy\n\nLearned: The branch was wrong": [],
}
found = [
    {"text": text, "tags": tags, "instance": "claude-mem:billing"} for text, tags in texts.items()
]
print(json.dumps({"memories": found, "left_out": 1}))
