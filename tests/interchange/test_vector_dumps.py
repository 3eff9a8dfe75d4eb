"""Dumps of vector databases: chroma-data-pipes, Qdrant, pgvector and vector-io."""

import json
from typing import Any

import pytest

from tests.interchange.samples import SAMPLES, read_sample, source_at, source_of
from tribal_mcp.errors import BundleError
from tribal_mcp.interchange.formats import recognise
from tribal_mcp.portability.memory import MemoryEntry


def _points(*points: Any, place: str = "points") -> list[MemoryEntry]:  # noqa: ANN401 - JSON
    value: Any = list(points)
    for key in reversed(place.split(".") if place else []):
        value = {key: value}
    return read_sample(source_of(json.dumps(value).encode()))[1]


def test_python_literals_of_cdp_are_refused_with_the_way_to_export_again() -> None:
    source = source_of(b'b\'{"id":"m0","text_chunk":"x \\xc2\\xb0"}\'\n' * 2)
    found = recognise(source)
    assert found is not None
    assert found.format.name == "cdp"
    with pytest.raises(BundleError, match="Python literals") as caught:
        read_sample(source)
    assert "without `--out`" in caught.value.next_steps[0].text


def test_a_row_of_mem0_in_cdp_has_its_text_in_the_metadata() -> None:
    row = {"id": "a", "metadata": {"data": "x", "user_id": "u"}, "text_chunk": None}
    source = source_of((json.dumps(row) + "\n").encode() * 2)
    conversion, (entry,), _ = read_sample(source)
    assert (entry.content, entry.source_instance) == ("x", "mem0:u")
    assert conversion.found == 2


@pytest.mark.parametrize("place", ["result.points", "points", "result", ""])
def test_points_are_found_where_qdrant_and_its_clients_put_them(place: str) -> None:
    assert [e.content for e in _points({"id": 1, "payload": {"text": "x"}}, place=place)] == ["x"]


@pytest.mark.parametrize("field", ["document", "data", "page_content"])
def test_the_text_of_a_point_is_found_under_each_name(field: str) -> None:
    (entry,) = _points({"id": 12, "payload": {field: "x", "n": 1}, "vector": [1, 2]})
    assert (entry.id, entry.content, entry.metadata) == ("12", "x", {"n": 1})
    assert entry.embedding is not None


def test_a_date_of_a_point_and_one_in_its_metadata_are_both_kept() -> None:
    inner = {"created_at": "2020-01-01", "n": 1}
    payload = {"text": "x", "created_at": "2026-01-05", "metadata": inner}
    (entry,) = _points({"id": 1, "payload": payload})
    assert (entry.created_at.year, entry.metadata) == (2026, {"metadata": inner})


def test_a_point_with_several_vectors_is_read_without_one() -> None:
    (entry,) = _points({"id": 1, "payload": {"text": "x"}, "vector": {"a": [1], "b": [2]}})
    assert entry.embedding is None


def test_the_model_of_fastembed_is_in_the_name_of_its_vector() -> None:
    source = source_at(SAMPLES / "qdrant-scroll.json")
    model = read_sample(source)[0].format.model(source)
    assert model is not None
    assert (model.model_name, model.dimensions) == ("all-minilm-l6-v2", 3)


def test_a_node_of_llama_index_in_pgvector_has_the_id_of_the_node() -> None:
    node = json.dumps({"_node_content": json.dumps({"text": ""})}).replace('"', '""')
    text = f'id,text,metadata_,node_id,embedding\n7,a text,"{node}",n-7,"[1,2]"\n'
    (entry,) = read_sample(source_of(text.encode()))[1]
    assert (entry.id, entry.content) == ("n-7", "a text")


def test_the_model_of_vector_io_is_in_its_description() -> None:
    source = source_at(SAMPLES / "vector-io.vdf")
    model = read_sample(source)[0].format.model(source)
    assert model is not None
    assert (model.model_name, model.dimensions) == ("all-MiniLM-L6-v2", 8)


@pytest.mark.parametrize(
    "point",
    [7, {"id": None, "payload": {"text": "x"}}, {"id": 2, "payload": []}, {"id": [1]}],
    ids=["number", "id", "payload", "list"],
)
def test_a_bad_point_is_rejected_with_its_number(point: object) -> None:
    value = [{"id": 1, "payload": {"text": "x"}}, point]
    conversion, entries, _ = read_sample(source_of(json.dumps(value).encode()))
    assert len(entries) == 1
    assert [r.where for r in conversion.rejected] == ["point 2"]
