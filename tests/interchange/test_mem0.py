"""mem0's many lists, its plugin's Markdown and OpenMemory."""

import gzip
import io
import json
import zipfile

import pytest

from tests.interchange.samples import SAMPLES, read_sample, source_of
from tribal_mcp.interchange.convert import Conversion
from tribal_mcp.interchange.formats import recognise
from tribal_mcp.portability.memory import MemoryEntry

RECORD = {"id": "1", "memory": "Likes tea.", "hash": "h", "created_at": "2026-01-01T00:00:00Z"}


def read(value: object) -> tuple[Conversion, list[MemoryEntry]]:
    text = value if isinstance(value, str) else json.dumps(value)
    conversion, entries, _ = read_sample(source_of(text.encode()))
    assert conversion.format.name == "mem0"
    return conversion, entries


@pytest.mark.parametrize("name", ["results", "memories", "items", "records", ""])
def test_a_list_is_read_alone_and_under_every_name(name: str) -> None:
    _, entries = read({name: [RECORD]} if name else [RECORD])
    assert [entry.content for entry in entries] == ["Likes tea."]


@pytest.mark.parametrize(
    "time", ["2026-01-01T01:00:00+01:00", 1767225600, 1767225600000, "1767225600"]
)
def test_times_are_iso_seconds_or_milliseconds(time: str | int) -> None:
    _, (entry,) = read([{**RECORD, "created_at": time}])
    assert entry.created_at.timestamp() == 1767225600


def test_the_same_text_twice_for_one_owner_is_two_memories() -> None:
    _, entries = read([RECORD, {**RECORD, "id": "2"}])
    assert [entry.id for entry in entries] == ["1", "2"]


def test_owners_are_in_the_source_instance_and_in_the_metadata() -> None:
    _, (entry,) = read([{**RECORD, "user_id": "ada", "agent_id": None, "run_id": "r"}])
    assert entry.source_instance == "mem0:ada/r"
    assert entry.metadata == {"hash": "h", "user_id": "ada", "run_id": "r"}


def test_metadata_with_the_name_of_a_field_stays_apart() -> None:
    _, (entry,) = read([{**RECORD, "metadata": {"hash": "mine", "a": 1}}])
    assert entry.metadata == {"hash": "h", "metadata": {"hash": "mine", "a": 1}}


def test_relations_of_the_graph_are_counted_and_left_out() -> None:
    relation = {"source": "ada", "relationship": "likes", "target": "tea"}
    conversion, entries = read({"results": [RECORD], "relations": [relation]})
    assert conversion.left_out == {"a relation of the graph": 1}
    assert len(entries) == 1


def test_a_migration_is_read_from_its_payload_where_the_record_has_no_text() -> None:
    record = {"id": "1", "memory": None, "source_payload": {"data": "Likes tea.", "user_id": "ada"}}
    _, (entry,) = read({"kind": "mem0_oss_qdrant_export", "records": [record]})
    assert (entry.content, entry.source_instance) == ("Likes tea.", "mem0:ada")


BLOCKS = """---
id: a
created_at: 2026-01-01T00:00:00Z
type: decision
---
Line one.

---
Below a rule.
---
id: b
created_at: 2026-01-02T00:00:00Z
type: decision
confidence: 7
---
Not sure.
---
id: c
created_at: unknown
type: decision
---
"""


def test_blocks_of_the_plugin_keep_their_rules_and_empty_lines() -> None:
    conversion, entries = read(BLOCKS)
    assert [(e.id, e.content) for e in entries] == [("a", "Line one.\n\n---\nBelow a rule.")]
    assert [str(rejected) for rejected in conversion.rejected] == [
        "file, line 10: confidence is 7.0, not a number from 0 to 1"
    ]
    assert conversion.left_out == {"a memory without text": 1}


def test_lines_of_openmemory_are_read_alone() -> None:
    with zipfile.ZipFile(SAMPLES / "openmemory-export.zip") as archive:
        data = archive.read("memories.jsonl.gz")
    for text in (data, gzip.decompress(data)):
        conversion, (entry,), _ = read_sample(source_of(text))
        assert (entry.tags, entry.source_instance) == (["preferences"], "mem0:claude")
        assert conversion.left_out == {"a deleted memory without the time of its deletion": 1}


def test_a_zip_of_other_json_is_not_openmemory() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("memories.json", json.dumps({"memories": [], "x": 1}))
    assert recognise(source_of(out.getvalue())) is None
