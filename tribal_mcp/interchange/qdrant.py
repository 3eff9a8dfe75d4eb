"""Points of Qdrant, as its scroll request answers them."""

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

from tribal_mcp.interchange.base import LIKELY, Evidence, Format, Item, Options, only_file
from tribal_mcp.interchange.conventions import FIELDS, LEFT_OUT, Record, item_of
from tribal_mcp.interchange.reading import items, json_lines, object_of
from tribal_mcp.interchange.records import record_item, rest_of
from tribal_mcp.interchange.source import Source
from tribal_mcp.interchange.vectors import Vectors, without
from tribal_mcp.portability.manifest import EmbeddingMetadata

_TEXTS = ("document", "page_content", "text", "content", "memory")
_PLACES = ("result.points.item", "points.item", "result.item", "item")
_FASTEMBED = "fast-"
"""What fastembed puts before the name of its model to name a vector."""


class Qdrant(Format):
    """One memory for each point."""

    name: ClassVar = "qdrant"
    title: ClassVar = "a list of points of a Qdrant collection"
    places: ClassVar = (
        "the answer of `POST /collections/NAME/points/scroll`, with payloads and vectors"
    )
    layout: ClassVar = "JSON with a list `points` of objects with `id` and `payload`"
    fields: ClassVar = {
        "id": "id; a number as text",
        "payload.document, page_content, text, content or memory": "content",
        "payload.metadata": "metadata; under metadata if a name is in the payload too",
        "vector": "the vector, if the point has only one",
        **FIELDS,
    }
    leaves_out: ClassVar = LEFT_OUT

    def recognise(self, source: Source) -> Evidence | None:
        """The first point has an id and a payload."""
        if source.file is None or not (place := _place(source, source.file)):
            return None
        where = "JSON lines" if place == "lines" else f"a list `{place.removesuffix('.item')}`"
        return Evidence(LIKELY, f"{where} of objects with `id` and `payload`")

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each point."""
        path = only_file(source, self)
        vectors = Vectors(source.notes)
        make = partial(_item, vectors=vectors)
        for number, value in _points(source, path):
            yield record_item(f"point {number:,}", value, make)
        vectors.finish()

    def model(self, source: Source) -> EmbeddingMetadata | None:
        """The model that fastembed names its vectors after."""
        if source.file is None:
            return None
        for _, value in _points(source, source.file):
            named = value.get("vector") if isinstance(value, dict) else None
            if isinstance(named, dict) and len(named) == 1:
                ((name, vector),) = named.items()
                if name.startswith(_FASTEMBED) and isinstance(vector, list) and vector:
                    return EmbeddingMetadata(name.removeprefix(_FASTEMBED), len(vector))
            return None
        return None


def _place(source: Source, path: str) -> str:
    """Where the points are: "lines", or a place in the JSON document; "" if there are none."""
    peek = source.peek(path)
    if peek.kind == "lines":
        return "lines" if _is_point(peek.first) else ""
    for place in _PLACES:
        value = peek.value
        for key in place.split(".")[:-1]:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, list) and value and _is_point(value[0]):
            return place
    return ""


def _is_point(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("payload"), dict)
        and isinstance(value.get("id"), int | str)
    )


def _points(source: Source, path: str) -> Iterator[tuple[int, Any]]:
    place = _place(source, path)
    if place == "lines" or source.peek(path).kind == "lines":
        return json_lines(source.origin, path)
    return enumerate(items(source.origin, path, place or _PLACES[0]), 1)


def _item(where: str, point: dict[str, Any], vectors: Vectors) -> Item:
    payload = object_of(point.get("payload"), "payload")
    identity = point.get("id")
    vector = point.get("vector")
    if isinstance(vector, dict):
        vector = next(iter(vector.values())) if len(vector) == 1 else None
    name = next((n for n in _TEXTS if isinstance(payload.get(n), str)), "")
    rest = without(payload, name)
    rest = rest_of(rest)
    return item_of(
        where,
        Record(
            str(identity) if type(identity) is int else identity,
            payload.get(name),
            rest,
            vectors.read(vector),
            "qdrant",
        ),
    )
