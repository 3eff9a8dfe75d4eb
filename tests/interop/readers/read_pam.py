"""Loads an export with the Python SDK of Portable AI Memory, and validates it."""

import json
import sys

from portable_ai_memory import load, validate

store = load(sys.argv[1])
result = validate(store)
assert result.is_valid, result
assert not result.warnings, result
print(json.dumps({"texts": [memory.content for memory in store.memories]}))
