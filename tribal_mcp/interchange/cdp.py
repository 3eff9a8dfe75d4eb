"""chroma-data-pipes: JSON lines that `cdp export` writes from a Chroma collection."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

from tribal_mcp.errors import BundleError
from tribal_mcp.interchange.base import CERTAIN, Evidence, Format, Item, Options, only_file
from tribal_mcp.interchange.conventions import FIELDS, LEFT_OUT, Record, item_of
from tribal_mcp.interchange.reading import json_lines
from tribal_mcp.interchange.records import record_item
from tribal_mcp.interchange.source import Source
from tribal_mcp.interchange.vectors import Vectors
from tribal_mcp.next_steps import NextStep

_LITERAL = re.compile(r"""b['"]\{"id": ?""")


class Cdp(Format):
    """One memory for each line."""

    name: ClassVar = "cdp"
    title: ClassVar = "an export of chroma-data-pipes"
    places: ClassVar = "the output of `cdp export`"
    layout: ClassVar = 'JSON lines such as `{"id":…,"metadata":…,"embedding":…,"text_chunk":…}`'
    fields: ClassVar = {"text_chunk": "content", "embedding": "the vector", **FIELDS}
    leaves_out: ClassVar = LEFT_OUT

    def recognise(self, source: Source) -> Evidence | None:
        """The fields of its lines, or such lines as Python literals."""
        peek = source.only
        if peek.kind in {"lines", "object"} and {"id", "text_chunk", "metadata"} <= peek.keys:
            return Evidence(CERTAIN, "JSON lines with `text_chunk` and `metadata`")
        if peek.kind == "text" and _LITERAL.match(peek.text) and "text_chunk" in peek.text:
            return Evidence(CERTAIN, "Python literals that hold JSON with `text_chunk`")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each line."""
        path = only_file(source, self)
        if _LITERAL.match(source.peek(path).text):
            raise BundleError(
                f"{source.name!r:.80} has Python literals instead of JSON: "
                "`cdp export` with `--out` writes them.",
                NextStep("Export again with `cdp export … > FILE`, without `--out`."),
            )
        vectors = Vectors(source.notes)
        known: set[str] = set()
        if "_node_content" in source.peek(path).text:  # the only convention with links
            rows = (v for _, v in json_lines(source.origin, path) if isinstance(v, dict))
            known = {row["id"] for row in rows if isinstance(row.get("id"), str)}
        make = partial(_item, vectors=vectors, known=known)
        for number, value in json_lines(source.origin, path):
            yield record_item(f"line {number:,}", value, make)
        vectors.finish()


def _item(where: str, row: dict[str, Any], vectors: Vectors, known: set[str]) -> Item:
    text, metadata, vector = map(row.get, ("text_chunk", "metadata", "embedding"))
    vector = vectors.read(vector)
    return item_of(where, Record(row.get("id"), text, metadata, vector, "chroma", "", known))
