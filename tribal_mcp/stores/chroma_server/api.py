"""The collections of a Chroma server, in calls that it takes whole: capped by count and by bytes.

Vectors go as base64 and come back as numbers, bit by bit the float32 that went in. Ids are listed
in pages that overlap by one: where a page does not begin with the last id of the one before,
somebody has deleted meanwhile and pages have moved, so the listing begins again.
"""

import base64
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import orjson

from tribal_mcp.errors import StoreError
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.chroma_server.http import Absent, ServerHttp, TooLarge
from tribal_mcp.stores.raw import RawCollection, RawRecord
from tribal_mcp.stores.record import AS_JSON, OTHER_MODEL, OTHER_TIMES, STORED, named_models

CALL_BYTES = 8 * 1024 * 1024
"""The most in one call; a server takes five times that, a proxy perhaps less."""

_NUMBERS = 400_000
_LISTINGS = 20


@dataclass(frozen=True, slots=True)
class Caps:
    """What one call may hold.

    Attributes:
        writes: records that are written.
        reads: ids or records that are read.
        terms: terms of a filter.
    """

    writes: int
    reads: int = 20_000
    terms: int = 200


@dataclass(frozen=True, slots=True)
class Coming:
    """Records that come into a collection."""

    ids: list[str]
    vectors: list[Vector]
    metadata: list[dict[str, Any]]
    documents: list[str] | None = None

    def calls(self, most: int) -> Iterator[Self]:
        """The same in parts of at most so many records, and `CALL_BYTES` unless one has more."""
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
        """Some of them."""
        return type(self)(
            self.ids[start:end],
            self.vectors[start:end],
            self.metadata[start:end],
            self.documents and self.documents[start:end],
        )


class ServerApi:
    """The collections of one database. Its methods block, and are called in a thread."""

    def __init__(self, http: ServerHttp) -> None:
        self._http = http
        self._caps: Caps | None = None
        server = http.server
        self._root = f"/tenants/{server.tenant}/databases/{server.database}"

    @property
    def caps(self) -> Caps:
        """What one call may hold; the first question to the server.

        Raises:
            StoreError: it does not have the database, or is no Chroma server.
        """
        if self._caps is None:
            server = self._http.server
            try:
                self._http.request("GET", self._root)
            except Absent:
                names = "CHROMA_TENANT and CHROMA_DATABASE"
                raise StoreError(
                    f"{self._http} has no database {server.database!r} in a tenant "
                    f"{server.tenant!r}. Look at {names if server.cloud else _ours(names)}."
                ) from None
            try:
                told = int(self._http.request("GET", "/pre-flight-checks")["max_batch_size"])
            except (LookupError, TypeError, ValueError):
                raise self._http.other_kind() from None
            # The cloud tells more than its quotas allow.
            self._caps = Caps(300, 300, 6) if server.cloud else Caps(told)
        return self._caps

    def collection(self, name: str) -> RawCollection | None:
        """The collection of that name, or None."""
        self.caps  # noqa: B018 - tells a missing database from a missing collection
        try:
            return _raw(self._http.request("GET", f"{self._root}/collections/{name}"))
        except Absent:
            return None

    def create(self, name: str, metadata: dict[str, Any]) -> RawCollection:
        """The collection of that name, made if it is missing; under l2, vectors stay exact."""
        body = {
            "name": name,
            "configuration": {"hnsw": {"space": "l2"}},
            "metadata": metadata,
            "get_or_create": True,
        }
        return _raw(self._http.request("POST", f"{self._root}/collections", body))

    def drop(self, name: str) -> None:
        """Remove a collection."""
        with suppress(Absent):  # a repeated request, whose first answer was lost
            self._http.request("DELETE", f"{self._root}/collections/{name}")

    def describe(self, collection: RawCollection, metadata: dict[str, Any]) -> None:
        """Replace the metadata of a collection."""
        path = f"{self._root}/collections/{collection.id}"
        self._http.request("PUT", path, {"new_metadata": metadata})

    def _at(self, collection: RawCollection, verb: str, body: Any = None) -> Any:  # noqa: ANN401 - JSON
        path = f"{self._root}/collections/{collection.id}/{verb}"
        return self._http.request("GET" if body is None else "POST", path, body)

    def count(self, collection: RawCollection) -> int:
        """How many records it has."""
        return int(self._at(collection, "count"))

    def ids(self, collection: RawCollection, where: dict[str, Any] | None = None) -> list[str]:
        """The ids of all records that a filter takes, oldest insertion first."""
        for _ in range(_LISTINGS):
            found = self._listed(collection, where)
            if found is not None:
                return found
        raise StoreError(
            f"So much is deleted from {self._http} at the moment that its memories can't be "
            "listed. Run the same again later."
        )

    def _listed(self, collection: RawCollection, where: dict[str, Any] | None) -> list[str] | None:
        found: list[str] = []
        limit = self.caps.reads
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
        dates: list[dict[str, Any]] = []
        if from_us is not None:
            dates.append({"created_at_us": {"$gte": from_us}})
        if to_us is not None:
            dates.append({"created_at_us": {"$lte": to_us}})
        most = self.caps.terms
        found: list[list[str]] = []
        for start in range(0, max(1, len(tags)), most):
            terms = [{"tags": {"$contains": tag}} for tag in tags[start : start + most]]
            both = dates + ([{"$or": terms} if len(terms) > 1 else terms[0]] if terms else [])
            where = {"$and": both} if len(both) > 1 else both[0] if both else None
            found.append(self.ids(collection, where))
        if len(found) == 1:
            return found[0]
        taken = {i for ids in found for i in ids}
        return [i for i in self.ids(collection) if i in taken]

    def stored_since(self, collection: RawCollection, moment_us: int) -> tuple[list[str], int]:
        """The ids of records written from that time on, and how many records don't say when.

        Of those the latest date counts that they have; one without any is among the ids.
        """
        after = self.ids(collection, {STORED: {"$gte": moment_us}})
        known = {*after, *self.ids(collection, {STORED: {"$lt": moment_us}})}
        silent = [i for i in self.ids(collection) if i not in known]
        for record in self.read(collection, silent, vectors=False):
            dates = [record.metadata[key] for key in OTHER_TIMES if key in record.metadata]
            if record.metadata.get(STORED, max(dates, default=moment_us)) >= moment_us:
                after.append(record.id)
        return after, len(silent)

    def other_models(self, collection: RawCollection) -> dict[str, str]:
        """The models that records name for their vectors, by id."""
        found = self.ids(collection, {OTHER_MODEL: {"$gte": 1}})
        return named_models(
            (record.id, record.metadata.get(AS_JSON))
            for record in self.read(collection, found, vectors=False)
            if OTHER_MODEL in record.metadata  # it may have been replaced meanwhile
        )

    def existing(self, collection: RawCollection, ids: Sequence[str]) -> list[str]:
        """Those of the ids that are there."""
        return [
            i
            for part in _parts(ids, self.caps.reads)
            for i in self._at(collection, "get", {"ids": part, "include": []})["ids"]
        ]

    def keys(self, collection: RawCollection, ids: Sequence[str]) -> dict[str, set[str]]:
        """The keys in the metadata of those that are there."""
        found: dict[str, set[str]] = {}
        for part in _parts(ids, self.caps.reads):
            body = {"ids": part, "include": ["metadatas"]}
            got = self._at(collection, "get", body)
            found |= {i: set(m or ()) for i, m in zip(got["ids"], got["metadatas"], strict=True)}
        return found

    def read(
        self, collection: RawCollection, ids: Sequence[str], *, vectors: bool = True
    ) -> Iterator[RawRecord]:
        """The records of those ids that are there."""
        include = ["documents", "metadatas", *(["embeddings"] if vectors else [])]
        most = max(1, _NUMBERS // (collection.dimension or 1)) if vectors else 1000
        for part in _parts(ids, min(most, 1000, self.caps.reads)):
            got = self._at(collection, "get", {"ids": part, "include": include})
            rows = got["embeddings"] if vectors else [None] * len(got["ids"])
            for memory_id, document, metadata, row in zip(
                got["ids"], got["documents"], got["metadatas"], rows, strict=True
            ):
                vector = None if row is None else np.array(row, np.float32)
                yield RawRecord(memory_id, document, metadata or {}, vector)

    def upsert(self, collection: RawCollection, coming: Coming) -> None:
        """Insert records, or write over those of their ids; a key that is None goes."""
        for call in coming.calls(self.caps.writes):
            self._upsert(collection, call)

    def _upsert(self, collection: RawCollection, call: Coming) -> None:
        body = {
            "ids": call.ids,
            "embeddings": [_base64(vector) for vector in call.vectors],
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
        """Remove the records of those ids."""
        for part in _parts(ids, self.caps.writes):
            self._at(collection, "delete", {"ids": part})


def _base64(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _parts(ids: Sequence[str], most: int) -> Iterator[list[str]]:
    return (list(ids[start : start + most]) for start in range(0, len(ids), most))


def _ours(names: str) -> str:
    return names.replace("CHROMA_", "TRIBAL_CHROMA_")


def _raw(model: dict[str, Any]) -> RawCollection:
    return RawCollection(
        model["id"],
        model["name"],
        model["dimension"],
        {"configuration": model["configuration_json"]},
        model["metadata"] or {},
    )
