"""Bundles in the Open Knowledge Format."""

from pathlib import Path

import pytest

from tests.interchange.samples import read_sample, source_of, source_with
from tribal_mcp.interchange.formats import recognise
from tribal_mcp.portability.memory import MemoryEntry


def concept(values: str, text: str = "Text.") -> str:
    return f"---\ntype: Note\n{values}\n---\n\n{text}\n"


INDEX = '---\nokf_version: "0.2"\n---\n# Notes\n'


def read(tmp_path: Path, files: dict[str, str]) -> dict[str, MemoryEntry]:
    conversion, entries, _ = read_sample(
        source_with(tmp_path / "bundle", {"index.md": INDEX, **files})
    )
    assert not conversion.rejected, conversion.rejected
    return {entry.metadata["file"]: entry for entry in entries}


def test_links_from_the_root_beside_and_without_a_suffix_are_found(tmp_path: Path) -> None:
    files = {
        "a/Name x.md": concept("", "[r](/b.md) [s](../b.md#h) [t](/c/Name%20y) [u](./z.md)"),
        "b.md": concept(""),
        "c/Name y.md": concept(""),
    }
    found = read(tmp_path, files)
    assert found["a/Name x.md"].related_to == [found["b.md"].id, found["c/Name y.md"].id]


def test_all_other_values_are_kept_under_their_names(tmp_path: Path) -> None:
    values = "resource: https://x\nstatus: draft\nverified: {by: human:a, at: 2026-01-01}\nzz: [1]"
    found = read(tmp_path, {"a.md": concept(values)})["a.md"]
    assert found.metadata == {
        "file": "a.md",
        "type": "Note",
        "resource": "https://x",
        "status": "draft",
        "verified": {"by": "human:a", "at": "2026-01-01"},
        "zz": [1],
    }


OWN = """x_tribal:
  id: my-id
  created_at: 2026-01-14T09:00:00+00:00
  updated_at: 2026-01-15T09:00:00+00:00
  confidence: 0.5
  source_type: correction
  source_instance: laptop
  supersedes: older
  related_to: [other]
  context: why
  metadata: {kept: 1}
  later_field: x
"""


def test_what_this_program_adds_gives_the_fields_back(tmp_path: Path) -> None:
    files = {"a.md": concept(OWN), "b.md": concept("", "[a](a.md)")}
    found = read(tmp_path, files)
    entry = found["a.md"]
    assert (entry.id, entry.confidence, entry.source_type) == ("my-id", 0.5, "correction")
    assert (entry.source_instance, entry.supersedes, entry.context) == ("laptop", "older", "why")
    assert (entry.created_at.day, entry.updated_at.day) == (14, 15)
    assert entry.related_to == ["other"]
    assert entry.metadata == {
        "file": "a.md",
        "type": "Note",
        "x_tribal": {"later_field": "x"},
        "kept": 1,
    }
    assert found["b.md"].related_to == ["my-id"]


@pytest.mark.parametrize(
    "values",
    [
        "tags: {a: b}",
        "generated: {by: x, at: soon}",
        "timestamp: [1]",
        "x_tribal: {confidence: high}",
        "x_tribal: {confidence: 2}",
        "x_tribal: {created_at: never}",
        "x_tribal: {related_to: {a: b}}",
        "x_tribal: {metadata: text}",
    ],
)
def test_values_of_a_wrong_kind_reject_their_file(tmp_path: Path, values: str) -> None:
    files = {"index.md": INDEX, "a.md": concept(values), "b.md": concept("")}
    conversion, entries, _ = read_sample(source_with(tmp_path / "bundle", files))
    assert len(entries) == 1
    assert [str(r).split(":")[0] for r in conversion.rejected] == ["a.md"]


@pytest.mark.parametrize(
    "values", ["x_tribal: text", "x_tribal: {id: 5}", "sources: x", "generated: [1]", "verified: 1"]
)
def test_values_of_another_shape_are_kept(tmp_path: Path, values: str) -> None:
    assert read(tmp_path, {"a.md": concept(values)})["a.md"].content == "Text."


def test_files_that_are_no_concepts_have_a_reason(tmp_path: Path) -> None:
    files = {
        "index.md": INDEX,
        "a/log.md": "# Log",
        "a/x.py": "1",
        "a/INDEX.md": "",
        "b.md": "B",
    }
    conversion, entries, _ = read_sample(source_with(tmp_path / "bundle", files))
    assert [entry.content for entry in entries] == ["B"]
    assert conversion.left_out == {
        "an index file: a list of links to the memories": 2,
        "log.md: the history of the bundle": 1,
        "a file that is not Markdown": 1,
    }


def test_a_single_concept_is_known_by_its_values() -> None:
    text = concept("title: T\ngenerated: { by: x/1, at: 2026-01-01T00:00:00Z }").encode()
    found = recognise(source_of(text))
    assert found is not None
    assert found.format.name == "okf"
