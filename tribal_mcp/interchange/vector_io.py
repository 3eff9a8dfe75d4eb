"""vector-io: vector databases as Parquet files with a description (VDF)."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from tribal_mcp.errors import BundleError
from tribal_mcp.interchange.base import CERTAIN, Evidence, Format, Item, Options, unlike
from tribal_mcp.interchange.conventions import FIELDS, LEFT_OUT, Record, item_of
from tribal_mcp.interchange.csv_parquet import parquet_rows
from tribal_mcp.interchange.reading import whole_json
from tribal_mcp.interchange.source import Source
from tribal_mcp.interchange.vectors import Vectors, without
from tribal_mcp.portability.manifest import EmbeddingMetadata

_META = "vdf_meta.json"
_ID = "id"
_VECTOR = "vector"
_TEXTS = ("document", "text", "content", "page_content")
_UNKNOWN = {"", "NOT_PROVIDED", "unknown"}


class VectorIo(Format):
    """One memory for each row of each index."""

    name: ClassVar = "vector-io"
    title: ClassVar = "a VDF export of vector-io"
    places: ClassVar = "the folder that `export_vdf` writes"
    layout: ClassVar = "`VDF_META.json` beside folders of Parquet files"
    fields: ClassVar = {
        "id": "id",
        "document": "content",
        "vector": "the vector; its model from VDF_META.json",
        **FIELDS,
    }
    leaves_out: ClassVar = LEFT_OUT

    def recognise(self, source: Source) -> Evidence | None:
        """Its description, with the indexes."""
        return Evidence(CERTAIN, "`VDF_META.json` with `indexes`") if _indexes(source) else None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each row of each Parquet file."""
        indexes = _indexes(source)
        if not indexes:
            raise unlike(source, self)
        vectors = Vectors(source.notes)
        for path in source.ending(".parquet"):
            folder = path.rpartition("/")[0]
            index = next((i for i in indexes if folder.endswith(str(i.get("data_path")))), {})
            column = _vector_column(index)
            for where, row in parquet_rows(source.origin, path):
                assert not isinstance(row, Exception)  # noqa: S101 - Parquet has typed rows
                yield _item(f"{path}, {where}", row, column, str(index.get("index_name")), vectors)
        vectors.finish()

    def model(self, source: Source) -> EmbeddingMetadata | None:
        """The model that all indexes name."""
        found = set()
        for index in _indexes(source):
            name, dimensions = index.get("model_name"), index.get("dimensions")
            named = isinstance(name, str) and name not in _UNKNOWN
            if not named or not isinstance(dimensions, int) or dimensions < 1:
                return None
            found.add(EmbeddingMetadata(str(name), dimensions))
        return found.pop() if len(found) == 1 else None


def _indexes(source: Source) -> list[Mapping[str, Any]]:
    """What the description says of each index."""
    for path in source.named(_META):
        try:
            meta = whole_json(source.origin, path)
        except BundleError:
            continue
        named = meta.get("indexes") if isinstance(meta, dict) else None
        if isinstance(named, dict):
            groups = [group for group in named.values() if isinstance(group, list)]
            return [index for group in groups for index in group if isinstance(index, dict)]
    return []


def _vector_column(index: Mapping[str, Any]) -> str:
    columns = index.get("vector_columns")
    return str(columns[0]) if isinstance(columns, list) and columns else _VECTOR


def _item(
    where: str, row: Mapping[str, Any], column: str, collection: str, vectors: Vectors
) -> Item:
    text = next((name for name in _TEXTS if isinstance(row.get(name), str)), "")
    return item_of(
        where,
        Record(
            row.get(_ID),
            row.get(text),
            without(row, _ID, column, text),
            vectors.read(row.get(column)),
            f"vector-io:{collection}",
            collection,
        ),
    )
