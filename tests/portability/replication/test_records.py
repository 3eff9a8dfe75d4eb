"""Versions as lines of JSON."""

import orjson
import pytest

from tests.stores.test_contract import RICH
from tribal_mcp.errors import EntryError
from tribal_mcp.portability.limits import DEFAULT_LIMITS
from tribal_mcp.portability.memory import MemoryEntry, own_model
from tribal_mcp.portability.memory_json import entry_fields
from tribal_mcp.portability.replication.reconcile import Known, Maker, reconcile
from tribal_mcp.portability.replication.records import (
    Head,
    Operation,
    Record,
    dump_head,
    dump_record,
    entry_of,
    line_with_vector,
    read_head,
    read_record,
    with_vector_of,
)
from tribal_mcp.portability.replication.versions import fields_of

PORTABLE = [entry for entry in RICH if entry.id != "memory-9"]  # its integers exceed JSON's 64 bits
MAKER = Maker("0123456789abcdef", lambda: 1)


def line_of(entry: MemoryEntry) -> bytes:
    known = reconcile(Known(), fields_of(entry_fields(entry)), (), MAKER).intended
    changed = {**fields_of(entry_fields(entry)), "tags": ["changed"]}
    [version] = reconcile(known, changed, (), MAKER).heads
    line = dump_record(Record(entry.id, version))
    if entry.embedding is None:
        return line
    return line_with_vector(line, entry.embedding, own_model(entry))


@pytest.mark.parametrize("entry", PORTABLE, ids=[entry.id for entry in PORTABLE])
def test_a_version_is_read_back_whole(entry: MemoryEntry) -> None:
    record = read_record(line_of(entry), DEFAULT_LIMITS)
    assert record.version.fields is not None
    back = with_vector_of(entry_of(record.id, record.version.fields), record)
    back.tags = entry.tags
    assert back == entry
    assert dump_record(record) == line_of(entry)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory", {"content": "forged", "created_at": "2026-01-01"}),
        ("memory", None),
        ("memory", 5),
        ("memory", ["id"]),
        ("embedding_model", 5),
        ("ancestors", []),
        ("ancestors", 7),
        ("stamp", "5-x--"),
        ("stamp", None),
        ("since", [[1]]),
        ("since", [[1, "", "5-x--"], ["a", "", "5-x--"]]),
        ("since", [["a", "", f"{1 << 63}-x--"]]),
        ("origin", None),
        ("origin", ["20261126-063450-613619"]),
        ("origin", [5, ""]),
        ("origin", ["20261126-063450-613619", "all"]),
        ("origin", ["an import", ""]),
        ("vector", "not base64"),
        ("vector", 5),
        ("id", ""),
        ("id", 5),
    ],
)
def test_a_version_whose_parts_do_not_fit_together_is_refused(name: str, value: object) -> None:
    data = orjson.loads(line_of(RICH[0]))
    with pytest.raises(EntryError):
        read_record(orjson.dumps({**data, name: value}), DEFAULT_LIMITS)
    with pytest.raises(EntryError):
        read_record(orjson.dumps([name, value]), DEFAULT_LIMITS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("operations", {"20260230-000000-000000": ["import", "", ""]}),
        ("operations", {"20260228-000000-000000": ["import"]}),
        ("operations", []),
        ("seen", {"1" * 16: 1e300}),
        ("seen", {"1" * 16: -1}),
        ("removed", {"../../etc": 1}),
        ("removed", {f"{number:016x}": 1 for number in range(10_001)}),
        ("swept", {"1" * 16: f"{'9' * 20}-"}),
        ("files", ["../00000001-0123456789abcdef.jsonl.zst"]),
        ("model", {"model_name": "m", "dimensions": -1}),
        ("previous", [f"{number:08}-0" for number in range(17)]),
        ("previous", [5]),
    ],
    ids=[
        "a day that does not exist", "too few parts", "a list", "a huge number",
        "a negative number", "a path as a machine", "too many machines", "too many digits",
        "a path as a file", "a model that is not valid",
        "too many earlier files", "a number as an earlier file",
    ],
)  # fmt: skip
def test_a_head_with_a_value_that_is_not_valid_is_refused(name: str, value: object) -> None:
    known = {"20260228-000000-000000": Operation("import", "a.json", "laptop")}
    line = dump_head(Head("0123456789abcdef", "laptop", 1, operations=known))
    assert read_head(line).operations == known
    with pytest.raises(EntryError, match=r"^has a first line that is not valid"):
        read_head(orjson.dumps({**orjson.loads(line), name: value}))
