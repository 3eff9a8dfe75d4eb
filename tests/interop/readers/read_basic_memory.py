"""Has basic-memory index a folder that an export wrote, and searches it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

EXPORT, STORE = Path(sys.argv[1]), Path(sys.argv[2])
shutil.copytree(EXPORT, STORE)
environment = os.environ | {"BASIC_MEMORY_HOME": str(STORE), "HOME": str(STORE.parent)}
command = [str(Path(sys.executable).with_name("basic-memory"))]


def run(*arguments):
    return subprocess.check_output([*command, *arguments], env=environment, text=True)


run("reindex")
texts = []
for note in sorted(STORE.glob("*.md")):
    found = json.loads(run("tool", "read-note", "--local", note.stem))
    texts.append(found["content"])
print(json.dumps({"texts": texts, "store": "."}))
