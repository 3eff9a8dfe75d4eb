"""Writes notes with the tool of basic-memory, and prints what it returned."""

import json
import os
import subprocess
import sys
from pathlib import Path

STORE = Path(sys.argv[1])
NOTES = [
    (
        "Deploy: rules/prod?",
        "ops",
        "# Deploys\n\nDeploys run from the release branch only. See [[Zürich]].",
        ["ops", "rules"],
    ),
    ("Zürich", "places", "Zürich has\ntwo lines.", []),
]
STORE.mkdir(parents=True)
environment = os.environ | {"BASIC_MEMORY_HOME": str(STORE), "HOME": str(STORE.parent)}
command = [str(Path(sys.executable).with_name("basic-memory")), "tool", "write-note", "--local"]
found = []
for title, folder, text, tags in NOTES:
    note = ["--title", title, "--folder", folder, "--content", text]
    for tag in tags:
        note += ["--tags", tag]
    made = subprocess.check_output([*command, *note], env=environment, text=True)
    assert json.loads(made)["action"] == "created"
    found.append({"text": text, "tags": tags})
print(json.dumps({"memories": found}))
