"""Reads a folder with an unknown layout, which `ChromaFiles` can't read, through Chroma's API.

It is three to five times slower, and Chroma holds the index in memory. Ids are fetched first and
then the records by their ids: paging by offset would lose records while others delete, and cost
more with each page.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.base import in_parts
from tribal_mcp.stores.chroma.files.tables import DOCUMENT
from tribal_mcp.stores.raw import RawCollection, RawRecord, where_of
from tribal_mcp.stores.record import (
    AS_JSON,
    CREATED,
    OTHER_MODEL,
    OTHER_TIMES,
    STORED,
    named_models,
)
from tribal_mcp.stores.search import UNKNOWN, Tally, month_of, tally_of

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

_TERMS = 200
"""Tags in one query: Chroma refuses a thousand."""
_INT64 = 1 << 63


class ApiFiles:
    """The interface of `ChromaFiles`, implemented with a Chroma client."""

    def __init__(self, client: "ClientAPI") -> None:
        self._client = client

    def close(self) -> None:
        """Does nothing: the client belongs to the folder."""

    def vectors(self, collection: RawCollection, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those ids, each float32 of shape (dimension,)."""
        return {
            record.id: record.vector
            for batch in self.read(collection, ids)
            for record in batch
            if record.vector is not None
        }

    def texts(self, collection: RawCollection, ids: Sequence[str]) -> dict[str, str]:
        """The documents of those ids in that order; missing records are left out."""
        return {r.id: r.document or "" for r in self._rows(collection, ids)}

    def with_value(
        self, collection: RawCollection, key: str, values: Sequence[str]
    ) -> list[tuple[str, str]]:
        """Value and id of each record that has one of the values under the key, oldest first."""
        wanted = set(values)
        found = (
            (r.document if key == DOCUMENT else r.metadata.get(key), r.id)
            for r in self._rows(collection)
        )
        return [(value, i) for value, i in found if isinstance(value, str) and value in wanted]

    def tally(self, collections: Sequence[RawCollection]) -> Tally:
        """Counts of the records of all the collections together."""
        records = (record.metadata for c in collections for record in self._rows(c))
        return tally_of(
            (
                record.get("tags", ()),
                record.get("source_type", UNKNOWN),
                month_of(record[CREATED]) if CREATED in record else UNKNOWN,
            )
            for record in records
        )

    def _rows(
        self, collection: RawCollection, ids: Sequence[str] | None = None
    ) -> Iterator[RawRecord]:
        for batch in self.read(collection, ids, vectors=False):
            yield from batch

    def _at(self, collection: RawCollection) -> "Collection":
        return self._client.get_collection(collection.name, embedding_function=None)

    def collection(self, name: str) -> RawCollection | None:
        """The collection of that name, or None."""
        return next((c for c in self.collections() if c.name == name), None)

    def collections(self) -> list[RawCollection]:
        """All collections, by name."""
        found = (
            self._client.get_collection(c.name, embedding_function=None).get_model()
            for c in self._client.list_collections()
        )
        return sorted(
            (
                RawCollection(
                    str(model.id),
                    model.name,
                    model.dimension,
                    {"configuration": model.configuration_json},
                    dict(model.metadata or {}),
                )
                for model in found
            ),
            key=lambda collection: collection.name,
        )

    def count(self, collection: RawCollection) -> int:
        """How many records the collection has."""
        return self._at(collection).count()

    def existing(self, collection: RawCollection, ids: Sequence[str]) -> list[str]:
        """Those of the ids that have a record."""
        return self._at(collection).get(ids=list(ids), include=[])["ids"] if ids else []

    def ids(self, collection: RawCollection) -> list[str]:
        """The ids of all records, oldest insertion first."""
        return self._at(collection).get(include=[])["ids"]

    def matching_ids(
        self,
        collection: RawCollection,
        tags: Sequence[str] = (),
        from_us: int | None = None,
        to_us: int | None = None,
    ) -> list[str]:
        """The ids of records with any of the tags and a date in the range, oldest first."""
        found: set[str] = set()
        for some in [*in_parts(tags, _TERMS)] or [[]]:
            found |= self._where(collection, where_of(some, from_us, to_us))
        return [i for i in self.ids(collection) if i in found]

    def newest(
        self,
        collections: Sequence[RawCollection],
        tags: Sequence[str],
        from_us: int | None,
        to_us: int | None,
        *,
        skip: int,
        count: int,
    ) -> tuple[list[str], int]:
        """The ids of the matching records created last, newest first, and how many match."""
        found: list[tuple[float, int, str]] = []
        for collection in collections:
            taken = self.matching_ids(collection, tags, from_us, to_us)
            created = {
                row.id: row.metadata.get("created_at_us") for row in self._rows(collection, taken)
            }
            for memory_id in taken:
                date = created.get(memory_id)
                found.append((date if type(date) is int else -math.inf, len(found), memory_id))
        found.sort(reverse=True)
        return [memory_id for *_, memory_id in found[skip : skip + count]], len(found)

    def stored_since(self, collection: RawCollection, moment_us: int) -> list[str]:
        """The ids of records written since then; without that time, the last date counts."""
        before = self._where(collection, {STORED: {"$lt": moment_us}})
        after = self._where(collection, {STORED: {"$gte": moment_us}})
        dated = self._where(collection, {"$or": [{t: {"$lt": moment_us}} for t in OTHER_TIMES]})
        dated -= self._where(collection, {"$or": [{t: {"$gte": moment_us}} for t in OTHER_TIMES]})
        return [i for i in self.ids(collection) if i in after or i not in before | dated]

    def other_models(self, collection: RawCollection) -> dict[str, str]:
        """The models that records name for their vectors, by id."""
        found = self._where(collection, {OTHER_MODEL: {"$gte": 1}})
        rows = self._rows(collection, sorted(found))
        return named_models((row.id, row.metadata.get(AS_JSON)) for row in rows)

    def unrecorded(self, collection: RawCollection) -> int:
        """How many records have no time of writing."""
        return self.count(collection) - len(self._where(collection, {STORED: {"$gte": -_INT64}}))

    def _where(self, collection: RawCollection, where: Any) -> set[str]:  # noqa: ANN401 - a condition
        return set(self._at(collection).get(where=where, include=[])["ids"])

    def read(
        self,
        collection: RawCollection,
        ids: Sequence[str] | None = None,
        batch_size: int = 1000,
        *,
        vectors: bool = True,
    ) -> Iterator[list[RawRecord]]:
        """The records of those ids in that order, or all, in batches; missing ones are left out."""
        import numpy as np

        wanted = self.ids(collection) if ids is None else ids
        include: Any = ["documents", "metadatas", *(["embeddings"] if vectors else [])]
        for part in in_parts(wanted, batch_size):
            got = self._at(collection).get(ids=list(part), include=include)
            if not got["ids"]:
                continue
            documents, metadatas, embeddings = (
                got["documents"],
                got["metadatas"],
                got["embeddings"],
            )
            assert documents is not None  # noqa: S101 - requested
            assert metadatas is not None  # noqa: S101
            records = {
                memory_id: RawRecord(
                    memory_id,
                    documents[n],
                    dict(metadatas[n] or {}),
                    None if embeddings is None else np.asarray(embeddings[n], np.float32),
                )
                for n, memory_id in enumerate(got["ids"])
            }
            yield [records[i] for i in part if i in records]
