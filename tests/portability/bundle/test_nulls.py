"""Null in a bundle means not given: the default of an optional field, a refusal elsewhere."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bundles import as_dict
from tribal_mcp.errors import BundleError
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import entry_to_dict

REFUSE_FILE = {
    ("manifest",), ("manifest", "schema_version"), ("manifest", "embedding"),
    ("manifest", "embedding", "model_name"), ("manifest", "embedding", "dimensions"),
    ("entries",), ("deleted", 0), ("deleted", 0, "id"), ("deleted", 0, "deleted_at"),
}  # fmt: skip
REFUSE_ENTRY = {
    ("entries", 0), ("entries", 0, "id"), ("entries", 0, "content"), ("entries", 0, "created_at"),
    ("entries", 0, "embedding", 0), ("entries", 0, "tags", 0), ("entries", 0, "related_to", 0),
}  # fmt: skip


def bundle() -> dict[str, Any]:
    """A bundle with a value in every field that the format's page lists."""
    whole = as_dict(1)
    whole["manifest"] |= {"since": "2026-01-01", "selection": "tag work", "memory_count": 1}
    whole["manifest"]["embedding"] |= {"created_at": "2026-01-01", "provider": "tests"}
    [entry] = whole["entries"]
    entry |= {"context": "x", "supersedes": "b", "related_to": ["c"], "metadata": {"k": 1}}
    entry |= {"embedding": [0.5] * whole["manifest"]["embedding"]["dimensions"], "tags": ["work"]}
    return whole | {
        "deleted": [{"id": "d", "deleted_at": "2026-01-01T00:00:00+00:00"}], "integrity": None
    }  # fmt: skip


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - any JSON
    """The way to every value, of lists to their first item."""
    items = value[:1] if isinstance(value, list) else ()
    children = value if isinstance(value, dict) else dict(enumerate(items))
    for key, child in children.items():
        yield (*path, key)
        yield from paths(child, (*path, key))


PATHS = {".".join(map(str, path)): path for path in paths(bundle())}


def changed(path: tuple[Any, ...], *, without: bool) -> bytes:
    """The bundle with null at a place, or without it."""
    whole = bundle()
    holder: Any = whole
    for key in path[:-1]:
        holder = holder[key]
    if without:
        del holder[path[-1]]
    else:
        holder[path[-1]] = None
    return json.dumps(whole).encode()


def read(data: bytes) -> tuple[dict[str, Any], list[Any], int]:
    """The manifest, the entries or why they were rejected, and the count of tombstones."""
    reader = BundleReader(io.BytesIO(data))
    reader.verify()
    items = [item for batch in reader.batches() for item in batch]
    entries = [entry_to_dict(i) if isinstance(i, MemoryEntry) else str(i) for i in items]
    return reader.manifest.to_dict(), entries, sum(len(batch) for batch in reader.deleted())


@pytest.mark.parametrize("name", PATHS)
def test_null_means_not_given(name: str) -> None:
    path = PATHS[name]
    data = changed(path, without=False)
    if path in REFUSE_FILE:
        with pytest.raises(BundleError, match="Nothing was imported") as refused:
            read(data)
        assert "None" not in str(refused.value)
        return
    manifest, [entry], tombstones = read(data)
    if path in REFUSE_ENTRY:
        assert "null" in entry
    elif path[-1] == "k":  # metadata of another program stays as it is
        assert entry["metadata"] == {"k": None}
    else:
        assert (manifest, [entry], tombstones) == read(changed(path, without=True))


def test_an_unknown_field_that_is_null_is_kept() -> None:
    whole = bundle()
    whole["entries"][0]["mood"] = None
    whole["manifest"]["agent"] = None
    manifest, [entry], _ = read(json.dumps(whole).encode())
    assert entry["mood"] is None
    assert manifest["agent"] is None
