"""The collections of a database on a Chroma server, in calls limited by count and by bytes.

Vectors are sent as base64 and received as numbers, bit for bit the same float32. Ids are listed in
pages that overlap by one id. If a page does not begin with the last id of the page before, records
were deleted meanwhile and the pages have moved, so the listing starts again. (Over 300 lines: each
of the server's calls has its own limits.)
"""

import base64
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import orjson

from tribal_mcp.errors import StoreError
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.base import in_parts
from tribal_mcp.stores.chroma_server.http import Absent, ServerHttp, TooLarge
from tribal_mcp.stores.raw import RawCollection, RawRecord, where_of
from tribal_mcp.stores.record import AS_JSON, OTHER_MODEL, OTHER_TIMES, STORED, named_models

if TYPE_CHECKING:
    from tribal_mcp.portability.memory import MemoryEntry

CALL_BYTES = 8 * 1024 * 1024
"""The most bytes in one call; a server accepts five times that, a proxy perhaps less."""

_READ_NUMBERS = 400_000
"""The most numbers of vectors in one answer."""
_PAGE = 100
"""Collections in one answer."""
_LIST_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The limits of one call.

    Attributes:
        writes: records to write.
        reads: ids or records to read.
        terms: terms of a filter.
    """

    writes: int
    reads: int = 20_000
    terms: int = 200


@dataclass(frozen=True, slots=True)
class NewRecords:
    """Records to write to a collection; `vectors` and `metadata` are in the order of `ids`."""

    ids: list[str]
    vectors: list[Vector]
    metadata: list[dict[str, Any]]
    documents: list[str] | None = None

    def calls(self, most: int) -> Iterator[Self]:
        """The records in parts of at most `most` records and, if one fits, `CALL_BYTES` bytes."""
        start = size = 0
        for n in range(len(self.ids)):
            bytes_ = self.vectors[n].size * 6 + len(orjson.dumps(self.metadata[n]))
            bytes_ += len(self.documents[n].encode()) if self.documents else 0
            if n > start and (n - start == most or size + bytes_ > CALL_BYTES):
                yield self.part(start, n)
                start, size = n, 0
            size += bytes_
        if self.ids:
            yield self.part(start, len(self.ids))

    def part(self, start: int, end: int) -> Self:
        """The records from `start` to before `end`."""
        return type(self)(
            self.ids[start:end],
            self.vectors[start:end],
            self.metadata[start:end],
            self.documents and self.documents[start:end],
        )


class ServerApi:
    """One database of a server. Its methods block, and are called in a thread.

    Attributes:
        http: the connection.
        samples: some memories by the id of their collection, with how many it had.
    """

    def __init__(self, http: ServerHttp) -> None:
        self.http = http
        self.samples: dict[str, tuple[int, list[MemoryEntry]]] = {}
        self._limits: CallLimits | None = None
        server = http.server
        self._root = f"/tenants/{server.tenant}/databases/{server.database}"

    @property
    def limits(self) -> CallLimits:
        """The limits of one call; finding them out is the first request to the server.

        Raises:
            StoreError: it does not have the database, or is not a Chroma server.
        """
        if self._limits is None:
            server = self.http.server
            try:
                self.http.request("GET", self._root)
            except Absent:
                prefix = "" if server.cloud else "TRIBAL_"
                raise StoreError(
                    f"{self} has no database {server.database!r} of a tenant "
                    f"{server.tenant!r}. Check {prefix}CHROMA_TENANT and "
                    f"{prefix}CHROMA_DATABASE."
                ) from None
            try:
                most = int(self.http.request("GET", "/pre-flight-checks")["max_batch_size"])
            except (LookupError, TypeError, ValueError):
                raise self.http.not_chroma() from None
            # Chroma Cloud reports more than its quotas allow.
            self._limits = CallLimits(300, 300, 6) if server.cloud else CallLimits(most)
        return self._limits

    def __str__(self) -> str:
        return str(self.http)

    def collection(self, name: str) -> RawCollection | None:
        """The collection with that name, or None."""
        self.limits  # noqa: B018 - fails if the database is missing
        try:
            return _raw(self.http.request("GET", f"{self._root}/collections/{name}"))
        except Absent:
            return None

    def collections(self) -> list[RawCollection]:
        """All collections of the database, by name."""
        found: list[RawCollection] = []
        while True:
            query = f"limit={_PAGE}&offset={len(found)}"
            page = self.http.request("GET", f"{self._root}/collections?{query}")
            found += map(_raw, page)
            if len(page) < _PAGE:
                return sorted(found, key=lambda collection: collection.name)

    def create(self, name: str, metadata: dict[str, Any]) -> RawCollection:
        """The collection with that name, created if missing; with l2 its vectors stay exact."""
        body = {
            "name": name,
            "configuration": {"hnsw": {"space": "l2"}},
            "metadata": metadata,
            "get_or_create": True,
        }
        return _raw(self.http.request("POST", f"{self._root}/collections", body))

    def drop(self, name: str) -> None:
        """Delete a collection."""
        with suppress(Absent):  # deleted by the same request, whose answer was lost
            self.http.request("DELETE", f"{self._root}/collections/{name}")

    def describe(self, collection: RawCollection, metadata: dict[str, Any]) -> None:
        """Replace the metadata of a collection."""
        path = f"{self._root}/collections/{collection.id}"
        self.http.request("PUT", path, {"new_metadata": metadata})

    def _at(self, collection: RawCollection, verb: str, body: Any = None) -> Any:  # noqa: ANN401 - JSON
        path = f"{self._root}/collections/{collection.id}/{verb}"
        return self.http.request("GET" if body is None else "POST", path, body)

    def count(self, collection: RawCollection) -> int:
        """The number of its records."""
        return int(self._at(collection, "count"))

    def ids(self, collection: RawCollection, where: dict[str, Any] | None = None) -> list[str]:
        """The ids of all records that match a filter, in order of insertion."""
        for _ in range(_LIST_ATTEMPTS):
            found = self._listed(collection, where)
            if found is not None:
                return found
        raise StoreError(
            f"Can't list the memories on {self}: other programs keep deleting memories. "
            "Try again later."
        )

    def _listed(self, collection: RawCollection, where: dict[str, Any] | None) -> list[str] | None:
        found: list[str] = []
        limit = self.limits.reads
        while True:
            body: dict[str, Any] = {
                "where": where,
                "limit": limit,
                "offset": max(0, len(found) - 1),
                "include": [],
            }
            page = self._at(collection, "get", body)["ids"]
            if found and page[:1] != found[-1:]:
                return None
            found += page[1:] if found else page
            if len(page) < limit:
                return found

    def matching_ids(
        self,
        collection: RawCollection,
        tags: Sequence[str],
        from_us: int | None,
        to_us: int | None,
    ) -> list[str]:
        """The ids of records with any of the tags and a date in the range, oldest first."""
        most = self.limits.terms
        found = [
            self.ids(collection, where_of(tags[start : start + most], from_us, to_us))
            for start in range(0, max(1, len(tags)), most)
        ]
        if len(found) == 1:
            return found[0]
        taken = {i for ids in found for i in ids}
        return [i for i in self.ids(collection) if i in taken]

    def nearest(
        self, collection: RawCollection, vector: Vector, count: int, where: dict[str, Any] | None
    ) -> list[str]:
        """The ids of about the nearest records that match a filter, nearest first: one request."""
        body: dict[str, Any] = {
            "query_embeddings": [vector.tolist()],
            "n_results": min(count, self.limits.reads),
            "where": where,
            "include": [],
        }
        found: list[str] = self._at(collection, "query", body)["ids"][0]
        return found

    def texts(
        self,
        collection: RawCollection,
        where: dict[str, Any] | None,
        most: int,
        pattern: str = "",
    ) -> dict[str, str]:
        """The first texts that match a regular expression, by id: one request."""
        body: dict[str, Any] = {
            "where": where,
            "where_document": {"$regex": f"(?i){pattern}"} if pattern else None,
            "limit": min(most, self.limits.reads),
            "include": ["documents"],
        }
        found = self._at(collection, "get", body)
        return {i: d or "" for i, d in zip(found["ids"], found["documents"], strict=True)}

    def some(self, collection: RawCollection, count: int, offset: int) -> list[RawRecord]:
        """`count` records in order of insertion, without their vectors: one request."""
        body = {"limit": count, "offset": offset, "include": ["documents", "metadatas"]}
        got = self._at(collection, "get", body)
        return [
            RawRecord(i, document, dict(sorted((metadata or {}).items())), None)
            for i, document, metadata in zip(
                got["ids"], got["documents"], got["metadatas"], strict=True
            )
        ]

    def vectors(self, collection: RawCollection, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those of the records that exist, by id."""
        found: dict[str, Vector] = {}
        most = min(_READ_NUMBERS // (collection.dimension or 1) or 1, self.limits.reads)
        for part in in_parts(ids, most):
            got = self._at(collection, "get", {"ids": part, "include": ["embeddings"]})
            rows = (np.array(row, np.float32) for row in got["embeddings"])
            found |= zip(got["ids"], rows, strict=True)
        return found

    def having(
        self, collection: RawCollection, key: str, values: Sequence[str]
    ) -> list[tuple[str, str]]:
        """The value and the id of each record that has one of the values under a key."""
        return [
            (metadata[key], i)
            for part in in_parts(values, self.limits.terms)
            for got in [
                self._at(
                    collection, "get", {"where": {key: {"$in": part}}, "include": ["metadatas"]}
                )
            ]
            for i, metadata in zip(got["ids"], got["metadatas"], strict=True)
        ]

    def stored_since(self, collection: RawCollection, moment_us: int) -> tuple[list[str], int]:
        """The ids of records written since then, and how many have no recorded time of writing.

        For those the latest of their dates is used; one without any date is among the ids.
        """
        after = self.ids(collection, {STORED: {"$gte": moment_us}})
        recorded = {*after, *self.ids(collection, {STORED: {"$lt": moment_us}})}
        unrecorded = [i for i in self.ids(collection) if i not in recorded]
        for record in self.read(collection, unrecorded, vectors=False):
            dates = [record.metadata[key] for key in OTHER_TIMES if key in record.metadata]
            if record.metadata.get(STORED, max(dates, default=moment_us)) >= moment_us:
                after.append(record.id)
        return after, len(unrecorded)

    def other_models(self, collection: RawCollection) -> dict[str, str]:
        """The names of other models that records are marked with, by id."""
        found = self.ids(collection, {OTHER_MODEL: {"$gte": 1}})
        return named_models(
            (record.id, record.metadata.get(AS_JSON))
            for record in self.read(collection, found, vectors=False)
            if OTHER_MODEL in record.metadata  # else it was replaced meanwhile
        )

    def existing(self, collection: RawCollection, ids: Sequence[str]) -> list[str]:
        """Those of the ids that exist."""
        return [
            i
            for part in in_parts(ids, self.limits.reads)
            for i in self._at(collection, "get", {"ids": part, "include": []})["ids"]
        ]

    def keys(self, collection: RawCollection, ids: Sequence[str]) -> dict[str, set[str]]:
        """The metadata keys of those records that exist, by id."""
        found: dict[str, set[str]] = {}
        for part in in_parts(ids, self.limits.reads):
            body = {"ids": part, "include": ["metadatas"]}
            got = self._at(collection, "get", body)
            found |= {i: set(m or ()) for i, m in zip(got["ids"], got["metadatas"], strict=True)}
        return found

    def read(
        self, collection: RawCollection, ids: Sequence[str], *, vectors: bool = True
    ) -> Iterator[RawRecord]:
        """Those of the records that exist."""
        include = ["documents", "metadatas", *(["embeddings"] if vectors else [])]
        most = max(1, _READ_NUMBERS // (collection.dimension or 1)) if vectors else 1000
        for part in in_parts(ids, min(most, 1000, self.limits.reads)):
            got = self._at(collection, "get", {"ids": part, "include": include})
            rows = got["embeddings"] if vectors else [None] * len(got["ids"])
            for memory_id, document, metadata, row in zip(
                got["ids"], got["documents"], got["metadatas"], rows, strict=True
            ):
                vector = None if row is None else np.array(row, np.float32)
                yield RawRecord(memory_id, document, dict(sorted((metadata or {}).items())), vector)

    def upsert(self, collection: RawCollection, records: NewRecords) -> None:
        """Insert records, or replace those with their ids; a key set to None is removed."""
        for call in records.calls(self.limits.writes):
            self._upsert(collection, call)

    def _upsert(self, collection: RawCollection, call: NewRecords) -> None:
        body = {
            "ids": call.ids,
            "embeddings": [
                base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in call.vectors
            ],
            "metadatas": call.metadata,
            "documents": call.documents,
        }
        try:
            self._at(collection, "upsert", body)
        except TooLarge:
            if len(call.ids) == 1:
                raise
            middle = len(call.ids) // 2
            self._upsert(collection, call.part(0, middle))
            self._upsert(collection, call.part(middle, len(call.ids)))

    def delete(self, collection: RawCollection, ids: Sequence[str]) -> None:
        """Delete the records with those ids."""
        for part in in_parts(ids, self.limits.writes):
            self._at(collection, "delete", {"ids": part})


def _raw(model: dict[str, Any]) -> RawCollection:
    return RawCollection(
        model["id"],
        model["name"],
        model["dimension"],
        {"configuration": model["configuration_json"]},
        model["metadata"] or {},
    )
