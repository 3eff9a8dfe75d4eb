"""Parses and validates each concept of an export with fastokf."""

import json
import sys
from pathlib import Path

from fastokf import parse_file

documents = [
    parse_file(path) for path in sorted(Path(sys.argv[1]).rglob("*.md")) if path.name != "index.md"
]
assert all(document.frontmatter.generated for document in documents)
print(json.dumps({"texts": [document.body for document in documents]}))
