"""The reference memory server's file: what a naive reader gets wrong."""

import json
from typing import Any

import pytest

from tests.interchange.samples import read_sample, source_of
from tribal_mcp.interchange.convert import Conversion
from tribal_mcp.interchange.formats import recognise
from tribal_mcp.portability.memory import MemoryEntry


def _graph(*lines: Any) -> tuple[Conversion, list[MemoryEntry]]:  # noqa: ANN401 - JSON
    text = "\n".join(json.dumps(line) for line in lines)
    return read_sample(source_of(text.encode(), "memory.json"), format_name="reference-server")[:2]


def _entity(name: str, *observations: Any, kind: str = "person") -> dict[str, Any]:  # noqa: ANN401
    return {
        "type": "entity",
        "name": name,
        "entityType": kind,
        "observations": list(observations),
    }


def test_entities_with_equal_names_and_other_types_are_told_apart() -> None:
    conversion, entries = _graph(_entity("A", "x"), _entity("A", "x", "y", kind="cat"))
    assert [e.context for e in entries] == ["A (person)", "A (cat)", "A (cat)"]
    assert not conversion.rejected


def test_repeated_and_empty_observations_are_left_out() -> None:
    conversion, entries = _graph(_entity("A", "x", "", "x"), _entity("B", "x"))
    assert [(e.context, e.content) for e in entries] == [("A (person)", "x"), ("B (person)", "x")]
    assert conversion.left_out.total() == 2
    assert conversion.found == 4


def test_an_entity_without_observations_is_a_memory_of_its_name() -> None:
    _, entries = _graph(_entity("relation", kind="entity"), _entity("B", kind=""))
    assert [(e.content, e.context) for e in entries] == [
        ("relation", "relation (entity)"),
        ("B", "B"),
    ]


def test_an_entity_with_only_empty_observations_is_a_memory_of_its_name() -> None:
    relation = {"type": "relation", "from": "A", "to": "A", "relationType": "is"}
    conversion, (entity, itself) = _graph(_entity("A", "", "  "), relation)
    assert entity.content == "A"
    assert itself.related_to == [entity.id]
    assert conversion.left_out.total() == 2


def test_names_that_differ_in_case_are_different_entities() -> None:
    _, entries = _graph(_entity("a", "x"), _entity("A", "x"))
    assert len({e.id for e in entries}) == 2


@pytest.mark.parametrize("text", ["two\nlines", '{"type":"entity"}', "  spaces  ", "a\u2028b"])
def test_an_observation_is_kept_exactly(text: str) -> None:
    assert [e.content for e in _graph(_entity("A", text))[1]] == [text]


def test_a_relation_links_the_first_memories_of_its_entities() -> None:
    relation = {"type": "relation", "from": "A", "to": "B", "relationType": "knows"}
    _, (known, a, b, loose) = _graph(
        relation, _entity("A", "x"), _entity("B"), {**relation, "to": "nobody"}
    )
    assert known.content == "A knows B"
    assert known.related_to == [a.id, b.id]
    assert known.metadata == {"from": "A", "to": "B", "relationType": "knows"}
    assert loose.related_to == [a.id]


def test_a_relation_of_an_entity_to_itself_links_it_once() -> None:
    relation = {"type": "relation", "from": "A", "to": "A", "relationType": "is"}
    _, (a, itself) = _graph(_entity("A", "x"), relation)
    assert itself.related_to == [a.id]


def test_the_names_of_other_writers_are_read() -> None:
    _, (a, relation) = _graph(
        {"type": "entity", "entityName": "A", "entityType": "t", "observations": ["x"]},
        {"type": "relation", "from_id": "A", "to_id": "B", "relationType": "knows"},
    )
    assert a.metadata == {"entity": "A", "entityType": "t"}
    assert relation.related_to == [a.id]


def test_unknown_fields_are_kept() -> None:
    _, (entry,) = _graph({**_entity("A", "x"), "createdBy": "me"})
    assert entry.metadata["createdBy"] == "me"


def test_ids_do_not_depend_on_the_order_of_the_lines() -> None:
    lines = [_entity("A", "x", "y"), _entity("B", "z")]
    forward, backward = _graph(*lines)[1], _graph(*reversed(lines))[1]
    assert {e.id for e in forward} == {e.id for e in backward}


@pytest.mark.parametrize(
    "line",
    [
        7,
        {"type": "entity", "name": 1, "observations": []},
        {"type": "entity", "name": "A", "observations": "x"},
        {"type": "relation", "from": "A", "to": None, "relationType": "x"},
        {"type": "other"},
    ],
    ids=["number", "name", "observations", "relation", "type"],
)
def test_a_bad_line_is_rejected_with_its_number(line: object) -> None:
    conversion, entries = _graph(_entity("A", "x", 5), line)
    assert len(entries) == 1
    assert [r.where for r in conversion.rejected] == ["line 1, observation 2", "line 2"]


def test_a_file_with_one_line_is_recognised() -> None:
    found = recognise(source_of(json.dumps(_entity("A", "x")).encode()))
    assert found is not None
    assert found.format.name == "reference-server"


def test_what_read_graph_returns_gives_the_same_memories_as_the_file() -> None:
    relation = {"from": "A", "to": "B", "relationType": "knows"}
    _, expected = _graph(_entity("A", "x", "y"), _entity("B", "z"), relation | {"type": "relation"})
    entities = [_entity("A", "x", "y"), _entity("B", "z")]
    text = json.dumps({"entities": entities, "relations": [relation]}, indent=2)
    _, entries = read_sample(source_of(text.encode(), "graph.json"))[:2]
    assert entries == expected


def test_a_bad_part_of_a_graph_is_rejected_with_its_place() -> None:
    text = json.dumps({"entities": [_entity("A", "x")], "relations": [{"from": "A"}, 7]})
    conversion, entries = read_sample(source_of(text.encode(), "graph.json"))[:2]
    assert len(entries) == 1
    assert [bad.where for bad in conversion.rejected] == ["relations, item 1", "relations, item 2"]
