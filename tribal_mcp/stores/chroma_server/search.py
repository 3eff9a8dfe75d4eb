"""Search on a server, in a number of requests that does not depend on the number of memories.

The server finds candidates: by its vector index, which is approximate, and by a regular expression
on the texts. Their cosines and keywords are then compared exactly, as everywhere. Each regular
expression costs the server more than all the rest, so there are one or two, of the rarest keywords.
How rare they are is estimated from a sample of the texts. Not found are a keyword with a typo, some
accents, what the server's index misses, and the best of very many matches.
"""

from collections.abc import Collection
from typing import Any

from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.search.bm25 import KeywordSearch
from tribal_mcp.search.folding import fold_with_parts
from tribal_mcp.search.fusion import Ranked
from tribal_mcp.stores.chroma_server.collections import MEMORIES, Part, StoreCollections
from tribal_mcp.stores.chroma_server.patterns import TEXTS, find_all, matching, patterns
from tribal_mcp.stores.raw import where_of
from tribal_mcp.stores.record import to_entry
from tribal_mcp.stores.search import Nearest, check_dimensions

_MORE, _MOST = 20, 1000
"""Candidates for each memory that is asked for, and at most: the more, the better the server's
index searches."""
_COMPARED = 2
"""Of these, whose vectors are compared: the server orders by its own distance."""
_FEW = 10
"""Texts that suffice. If there are fewer, another regular expression is tried."""
_ALL, _PLACES = 500, 4
"""Texts of a collection that are all read. If there are more, it is the size of a sample from a few
places, which tells how rare keywords are."""
_CHANGED = 1.25
"""Growth of a store after which another sample is taken."""

Where = dict[str, Any] | None


def nearest(
    collections: StoreCollections,
    vector: Vector,
    count: int,
    filters: ExportFilter,
    without: Collection[str],
) -> list[tuple[str, float]]:
    """About the nearest memories, by exact cosine; see `SearchableStore.nearest`."""
    main, found = collections.get(Part.MAIN), Nearest(vector)
    if main is not None:
        check_dimensions(vector, main.dimension or 0)
        most = min(_MOST, _MORE * count) + len(without)
        near = collections.api.nearest(main, vector, most, _where(collections, filters))
        candidates = [i for i in near if i not in without][: _COMPARED * count]
        vectors = collections.api.vectors(main, candidates)
        found.look({i: vectors[i] for i in candidates if i in vectors})
    return found.best(count)


def rank_words(
    collections: StoreCollections, query: str, hints: str, filters: ExportFilter, most: int
) -> list[Ranked]:
    """About the memories that match best; see `SearchableStore.rank_words`."""
    search, where = KeywordSearch(query, hints), _where(collections, filters)
    if not search.keywords:
        return []
    total, having = 0, [0] * len(search.keywords)
    texts: dict[str, str] = {}
    for part in MEMORIES[:2]:
        collection, count = collections.get(part), collections.count(part)
        if collection is None:
            continue
        if count <= _ALL:
            found = collections.api.texts(collection, where, _ALL)
            texts, total = found | texts, total + len(found)
            continue
        sample = _sample(collections, part)
        share = sum(map(filters.matches, sample)) / len(sample) or 1 / (2 * len(sample))
        folded = [fold_with_parts(entry.content) for entry in sample]
        each = share * count / len(sample)
        # What no text of the sample has is not that rare.
        expected = [round(each * max(0.5, matching(k, folded))) for k in search.keywords]
        found = {}
        for pattern in patterns(search.keywords, expected, max(1, round(share * count)), query):
            found |= collections.api.texts(collection, where, TEXTS, pattern)
            if len(found) >= _FEW:
                break
        texts, total = found | texts, total + round(share * count)
        if len(found) >= TEXTS or not find_all(search.keywords, expected):
            hits = [sum(k.count(text) > 0 for text in folded) for k in search.keywords]
            having = [n + round(each * max(0.5, h)) for n, h in zip(having, hits, strict=True)]
    search.add(texts)
    return search.best(most, among=(having, total))


def sample(collections: StoreCollections, count: int, filters: ExportFilter) -> list[str]:
    """The ids of about `count` memories with a vector, from a few places of the store."""
    main, where = collections.get(Part.MAIN), _where(collections, filters)
    if main is None:
        return []
    if where is not None or collections.count(Part.MAIN) <= _ALL:
        return list(collections.api.texts(main, where, count))
    ids = [entry.id for entry in _sample(collections, Part.MAIN)]
    return ids[:: max(1, len(ids) // count)]


def _sample(collections: StoreCollections, part: Part) -> list[MemoryEntry]:
    """Some memories of a collection, without vectors; kept as long as the connection."""
    collection, total = collections.get(part), collections.count(part)
    assert collection is not None  # noqa: S101 - it has some
    then, entries = collections.api.samples.get(collection.id, (0, []))
    if not then / _CHANGED <= total <= then * _CHANGED:
        entries = [
            to_entry(record.id, record.document, record.metadata, None)
            for start in range(0, total, -(-total // _PLACES))
            for record in collections.api.some(collection, _ALL // _PLACES, start)
        ]
        collections.api.samples[collection.id] = total, entries
    return entries


def _where(collections: StoreCollections, filters: ExportFilter) -> Where:
    return where_of(filters.tags[: collections.api.limits.terms], *filters.bounds_us)
