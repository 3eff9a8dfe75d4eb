"""claude-mem's database and exports: what a naive reader gets wrong."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.interchange.samples import SAMPLES, read_sample, source_at, source_of
from tribal_mcp.interchange.convert import Conversion
from tribal_mcp.portability.memory import MemoryEntry


def _export(*observations: Any, **lists: Any) -> tuple[Conversion, list[MemoryEntry]]:  # noqa: ANN401
    document = {"exportedAtEpoch": 1, "observations": observations, **lists}
    return read_sample(source_of(json.dumps(document).encode()))[:2]


def _observation(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
    return {"id": 1, "memory_session_id": "s", "project": "p", "type": "change", **fields}


def test_the_database_and_an_export_of_it_give_the_same_memories() -> None:
    of_database = read_sample(source_at(SAMPLES / "claude-mem.db"))[1]
    of_export = read_sample(source_at(SAMPLES / "claude-mem-export.13.json"))[1]
    assert of_database == of_export


def test_a_row_of_13_x_has_no_text(tmp_path: Path) -> None:
    path = tmp_path / "claude-mem.db"
    path.write_bytes((SAMPLES / "claude-mem.db").read_bytes())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'text TEXT NOT NULL', 'text TEXT')"
        )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE observations SET text = NULL")
    assert len(read_sample(source_at(path))[1]) == 2


def test_a_database_whose_sessions_have_the_older_name_gives_the_same_ids(tmp_path: Path) -> None:
    path = tmp_path / "claude-mem.db"
    path.write_bytes((SAMPLES / "claude-mem.db").read_bytes())
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in ("observations", "session_summaries", "sdk_sessions"):
            connection.execute(
                f"ALTER TABLE {table} RENAME COLUMN memory_session_id TO sdk_session_id"
            )
    older, newer = (read_sample(source_at(p))[1] for p in (path, SAMPLES / "claude-mem.db"))
    assert [e.id for e in older] == [e.id for e in newer]


def test_an_older_row_is_its_text() -> None:
    _, (entry,) = _export(_observation(text="the finding", facts=None, concepts=None))
    assert entry.content == "the finding"


def test_a_row_may_be_a_title_only() -> None:
    _, (entry,) = _export(_observation(title="Only a title", facts="[]", narrative=None))
    assert entry.content == "Only a title"


def test_a_row_without_text_is_left_out() -> None:
    conversion, _ = _export(_observation(text="x"), _observation(id=2, text="", facts="[]"))
    assert conversion.left_out.total() == 1


def test_the_same_finding_in_two_sessions_is_two_memories() -> None:
    _, entries = _export(
        _observation(text="x"), _observation(text="x", memory_session_id="t", project="q")
    )
    assert [e.source_instance for e in entries] == ["claude-mem:p", "claude-mem:q"]


def test_an_edited_row_keeps_its_id() -> None:
    (before,), (after,) = (_export(_observation(text=text))[1] for text in ("old", "new"))
    assert before.id == after.id
    assert after.content == "new"


def test_sessions_and_prompts_are_left_out() -> None:
    conversion, entries = _export(_observation(text="x"), sessions=[{"id": 1}], prompts=[{"id": 1}])
    assert len(entries) == 1
    assert conversion.left_out.total() == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"narrative": 7},
        {"facts": "[1"},
        {"facts": [1]},
        {"created_at_epoch": "soon"},
        {"project": ["p"]},
    ],
    ids=["text", "broken list", "list of numbers", "date", "project"],
)
def test_a_bad_row_is_rejected_with_its_place(fields: dict[str, Any]) -> None:
    conversion, entries = _export(_observation(text="x"), _observation(id=2, text="y", **fields))
    assert len(entries) == 1
    assert [r.where for r in conversion.rejected] == ["observations, item 2"]
