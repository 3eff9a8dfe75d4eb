"""Reads Chroma's own files: rows from its database, vectors from its index and its log.

It needs no Chroma, no memory for the index and a third of the time; and it reads what Chroma can't
open any more. Whoever reads holds the folder's lock. Only the layout of `MIGRATIONS` is known; any
other is refused, for a wrong guess would be a wrong memory.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.memory import Vector
from tribal_mcp.stores.hnsw_files import HnswFiles

MIGRATIONS = {"sysdb": 10, "metadb": 6, "embeddings_queue": 2}
"""The last migration of each part of the database, as Chroma 1.5.9 leaves it."""

DOCUMENT = "chroma:document"
_ADD, _UPDATE, _UPSERT, _DELETE = range(4)
_SPACES = ("l2", "cosine", "ip")


class UnknownLayout(StoreDamaged):
    """The files are not laid out as this version knows them."""


@dataclass(frozen=True, slots=True)
class RawCollection:
    """A collection as it stands in the database."""

    id: str
    name: str
    dimension: int | None
    settings: dict[str, Any]
    """What Chroma stored of its schema and configuration, by the column's name."""
    metadata: dict[str, str | int | float | bool]

    @property
    def space(self) -> str:
        """The distance metric: l2, cosine or ip."""
        found = {node["space"] for node in _nodes(self.settings) if node.get("space") in _SPACES}
        return found.pop() if len(found) == 1 else "l2"

    def embedding_functions(self) -> set[str]:
        """The embedding functions that the stored settings name; Chroma constructs them."""
        return {
            str(function.get("name"))
            for node in _nodes(self.settings)
            if isinstance(function := node.get("embedding_function"), dict)
            and function.get("type") == "known"
        }


def _nodes(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from _nodes(child)


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record; `vector` is float32 of shape (dimension,), or None if it can't be found."""

    id: str
    document: str | None
    metadata: dict[str, Any]
    vector: Vector | None


@dataclass(slots=True)
class _Index:
    """Where the vectors of a collection are: in the index files, or in the log by seq id."""

    files: HnswFiles
    in_log: dict[str, int | None] = field(default_factory=dict)


class ChromaFiles:
    """The files of one Chroma folder, open for reading.

    Raises:
        UnknownLayout: they are not of the layout that is known.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hnsw: dict[str, HnswFiles] = {}
        uri = f"{(folder / 'chroma.sqlite3').absolute().as_uri()}?mode=ro"
        try:
            self._sql = sqlite3.connect(uri, uri=True, check_same_thread=False)
            found = dict(self._sql.execute("SELECT dir, max(version) FROM migrations GROUP BY dir"))
        except sqlite3.DatabaseError as error:
            raise UnknownLayout(f"The Chroma database can't be read: {error}.") from error
        if found != MIGRATIONS:
            self.close()
            raise UnknownLayout(
                f"The Chroma folder has a layout that is not known: {found} where {MIGRATIONS} "
                "is. It was written by another version of Chroma."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and the index files."""
        self._sql.close()
        for files in self._hnsw.values():
            files.close()
        self._hnsw.clear()

    def collection(self, name: str) -> RawCollection | None:
        """The collection of that name, or None."""
        return next((c for c in self.collections() if c.name == name), None)

    def collections(self) -> list[RawCollection]:
        """All collections, by name."""
        rows = self._sql.execute(
            "SELECT id, name, dimension, config_json_str, schema_str FROM collections ORDER BY name"
        ).fetchall()
        return [
            RawCollection(
                collection_id,
                name,
                dimension,
                {"configuration": _json(configuration), "schema": _json(schema)},
                dict(
                    (key, _value(*values))
                    for key, *values in self._sql.execute(
                        "SELECT key, str_value, int_value, float_value, bool_value "
                        "FROM collection_metadata WHERE collection_id = ?",
                        (collection_id,),
                    )
                ),
            )
            for collection_id, name, dimension, configuration, schema in rows
        ]

    def _segment(self, collection: RawCollection, scope: str) -> str:
        row = self._sql.execute(
            "SELECT id FROM segments WHERE collection = ? AND scope = ?", (collection.id, scope)
        ).fetchone()
        if row is None:
            raise UnknownLayout(f"The collection {collection.name!r} has no {scope} segment.")
        return str(row[0])

    def count(self, collection: RawCollection) -> int:
        """How many records it has."""
        segment = self._segment(collection, "METADATA")
        row = self._sql.execute("SELECT count(*) FROM embeddings WHERE segment_id = ?", (segment,))
        return int(row.fetchone()[0])

    def ids(self, collection: RawCollection) -> list[str]:
        """The ids of all records, oldest insertion first."""
        return self.matching_ids(collection)

    def existing(self, collection: RawCollection, ids: Sequence[str]) -> list[str]:
        """Those of the ids that are there."""
        return list(self._rows(collection, ids))

    def matching_ids(
        self,
        collection: RawCollection,
        tags: Sequence[str] = (),
        from_us: int | None = None,
        to_us: int | None = None,
    ) -> list[str]:
        """The ids of records with any of the tags and a date in the range, oldest first.

        Args:
            collection: where to look.
            tags: compared with the list under `tags`; none means any record.
            from_us: the least `created_at_us`.
            to_us: the greatest `created_at_us`.
        """
        sql = "SELECT embedding_id FROM embeddings WHERE segment_id = ?"
        values: list[Any] = [self._segment(collection, "METADATA")]
        if tags:
            sql += (
                " AND id IN (SELECT id FROM embedding_metadata_array WHERE key = 'tags' "
                "AND string_value IN (SELECT value FROM json_each(?)))"
            )
            values.append(json.dumps(list(tags)))
        if from_us is not None or to_us is not None:
            sql += (
                " AND id IN (SELECT id FROM embedding_metadata WHERE key = 'created_at_us' "
                "AND int_value BETWEEN ? AND ?)"
            )
            values += [-(1 << 63) if from_us is None else from_us]
            values += [(1 << 63) - 1 if to_us is None else to_us]
        return [row[0] for row in self._sql.execute(sql + " ORDER BY id", values)]

    def _rows(self, collection: RawCollection, ids: Sequence[str]) -> dict[str, int]:
        segment = self._segment(collection, "METADATA")
        return dict(
            self._sql.execute(
                "SELECT embedding_id, id FROM embeddings WHERE segment_id = ? "
                f"AND embedding_id IN ({_places(ids)})",
                (segment, *ids),
            ).fetchall()
        )

    def read(
        self,
        collection: RawCollection,
        ids: Sequence[str] | None = None,
        batch_size: int = 1000,
        *,
        vectors: bool = True,
    ) -> Iterator[list[RawRecord]]:
        """The records of those ids in that order, or all, in batches; a missing one is left out."""
        wanted = self.ids(collection) if ids is None else ids
        index = None
        for start in range(0, len(wanted), batch_size):
            part = wanted[start : start + batch_size]
            rows = self._rows(collection, part)
            if not rows:
                continue
            if vectors and index is None:
                index = self._index(collection)
            here = [i for i in part if i in rows]
            values = self._values([rows[i] for i in here])
            found = self._vectors(index, here) if index else {}
            yield [
                RawRecord(i, values[rows[i]].pop(DOCUMENT, None), values[rows[i]], found.get(i))
                for i in here
            ]

    def _values(self, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
        values: dict[int, dict[str, Any]] = {row: {} for row in rows}
        first, last = min(rows), max(rows)
        if last - first < 2 * len(rows):  # a range is read faster than a list of rows
            which, bounds = "BETWEEN ? AND ?", (first, last)
        else:
            which, bounds = f"IN ({_places(rows)})", tuple(rows)
        for row, key, value, truth in self._sql.execute(
            "SELECT id, key, coalesce(string_value, int_value, float_value), bool_value "
            f"FROM embedding_metadata WHERE id {which}",
            bounds,
        ):
            if row in values:
                values[row][key] = value if truth is None else bool(truth)
        for row, key, value, truth in self._sql.execute(
            "SELECT id, key, coalesce(string_value, int_value, float_value), bool_value "
            f"FROM embedding_metadata_array WHERE id {which} ORDER BY rowid",
            bounds,
        ):
            if row in values:
                values[row].setdefault(key, []).append(value if truth is None else bool(truth))
        return values

    def _index(self, collection: RawCollection) -> _Index:
        segment = self._segment(collection, "VECTOR")
        files = self._hnsw.get(segment)
        if files is None or files.changed():
            if files:
                files.close()
            files = HnswFiles(self._folder / segment, normalized=collection.space == "cosine")
            self._hnsw[segment] = files
        index = _Index(files)
        applied = self._sql.execute(
            "SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (segment,)
        ).fetchone()
        # The log holds calls as they were made; Chroma ignores an add of what is there and an
        # update of what is not, so they are played back as it would.
        for seq_id, operation, record_id, has_vector in self._sql.execute(
            "SELECT seq_id, operation, id, vector IS NOT NULL FROM embeddings_queue "
            "WHERE seq_id > ? AND topic LIKE ? ORDER BY seq_id",
            (int(applied[0]) if applied else -1, f"%/{collection.id}"),
        ):
            there = index.in_log.get(record_id, -1 if record_id in files else None) is not None
            if operation == _DELETE:
                index.in_log[record_id] = None
            elif has_vector and (operation == _UPSERT or there == (operation == _UPDATE)):
                index.in_log[record_id] = seq_id
        return index

    def _vectors(self, index: _Index, ids: Sequence[str]) -> dict[str, Vector]:
        logged = {s: i for i in ids if (s := index.in_log.get(i)) is not None}
        found = index.files.read([i for i in ids if i not in index.in_log])
        for seq_id, blob in self._sql.execute(
            f"SELECT seq_id, vector FROM embeddings_queue WHERE seq_id IN ({_places(logged)})",
            list(logged),
        ):
            found[logged[seq_id]] = np.frombuffer(blob, dtype="<f4")
        return found


def _json(text: str | None) -> Any:  # noqa: ANN401 - any JSON value
    return json.loads(text) if text else {}


def _value(
    text: str | None, whole: int | None, real: float | None, truth: int | None
) -> str | int | float | bool | None:
    if text is not None:
        return text
    if whole is not None:
        return whole
    return real if real is not None else None if truth is None else bool(truth)


def _places(values: Sequence[Any] | dict[int, str]) -> str:
    return ",".join("?" * len(values))
