"""Search on a server, in a number of requests that does not depend on the number of memories.

The server finds candidates: by its vector index, which is approximate, and by regular expressions
on the texts. Their cosines and keywords are then compared exactly, as everywhere. Not found are a
keyword with a typo, and what the server's index misses. Frequent words are counted up to the
server's limit of ids in one answer, and if a tag or date is asked for, they count as less frequent
than they are.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.memory import microseconds
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.search.bm25 import KeywordSearch
from tribal_mcp.search.folding import pattern_of
from tribal_mcp.search.fusion import Ranked
from tribal_mcp.search.keywords import Keyword
from tribal_mcp.stores.chroma_server.api import where_of
from tribal_mcp.stores.chroma_server.collections import MEMORIES, Part, StoreCollections
from tribal_mcp.stores.raw import RawCollection
from tribal_mcp.stores.search import Nearest, check_dimensions

_MORE, _MOST = 20, 1000
"""Candidates for each memory that is asked for, and at most: the more, the better the server's
index searches."""
_COMPARED = 4
"""Of these, whose vectors are compared: the server orders by its own distance."""
_LATIN_1 = 0xFF
_KEYWORDS = 6
"""Keywords that are searched one by one: the longest."""
_TEXTS, _BEST = 2000, 500
"""Texts in which keywords are counted if no more have one, and those of the best candidates if more
have."""
_PLACES = 4
"""Where a sample is taken from."""

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
        records = collections.api.read(main, candidates)
        found.look({r.id: r.vector for r in records if r.vector is not None})
    return found.best(count)


def rank_words(
    collections: StoreCollections, query: str, hints: str, filters: ExportFilter, most: int
) -> list[Ranked]:
    """About the memories that match best; see `SearchableStore.rank_words`."""
    search = KeywordSearch(query, hints)
    if not search.keywords:
        return []
    counts = {part: collections.count(part) for part in MEMORIES[:2]}
    parts = [c for part, n in counts.items() if n and (c := collections.get(part))]
    where, wide = _where(collections, filters), any(ord(c) > _LATIN_1 for c in query)
    patterns = [_pattern(keyword, wide=wide) for keyword in search.keywords]
    texts: dict[str, str] = {}
    for collection in parts:
        texts |= collections.api.texts(collection, "|".join(patterns), where, _TEXTS)
    having = [0] * len(patterns)
    if len(texts) >= _TEXTS:  # there are more
        having, ids = _candidates(collections, parts, search.keywords, patterns, where)
        found = {r.id: r.document or "" for r in collections.records(ids, vectors=False)}
        texts = {i: found[i] for i in ids if i in found}
    search.add(texts)
    return search.best(most, among=(having, sum(counts.values())))


def sample(collections: StoreCollections, count: int, filters: ExportFilter) -> list[str]:
    """The ids of about `count` memories with a vector, from a few places of the store."""
    main = collections.get(Part.MAIN)
    if main is None:
        return []
    where, total = _where(collections, filters), collections.api.count(main)
    if where is not None:  # how many match is not known
        return collections.api.some(main, count, 0, where)
    starts = {total * place // _PLACES for place in range(_PLACES)}
    found = [collections.api.some(main, count // _PLACES, at, None) for at in sorted(starts)]
    return list(dict.fromkeys(i for ids in found for i in ids))


def _candidates(
    collections: StoreCollections,
    parts: Sequence[RawCollection],
    keywords: Sequence[Keyword],
    patterns: Sequence[str],
    where: Where,
) -> tuple[list[int], list[str]]:
    """How many memories have each keyword, and those that have the rarest and most of them."""
    having = [0] * len(keywords)
    weights = Counter[str]()
    longest = sorted(range(len(keywords)), key=lambda n: -len(keywords[n].word))[:_KEYWORDS]
    for number in longest:
        found = [
            memory_id
            for collection in parts
            for memory_id in collections.api.containing(collection, patterns[number], where)
        ]
        having[number] = len(found)
        weights.update(dict.fromkeys(found, keywords[number].weight / (1 + len(found))))
    return having, [memory_id for memory_id, _ in weights.most_common(_BEST)]


def _pattern(keyword: Keyword, *, wide: bool) -> str:
    """A regular expression for texts that may have a keyword."""
    roots = dict.fromkeys(form.root for form in keyword.forms)
    return "|".join(pattern_of(root, wide=wide) for root in roots)


def _where(collections: StoreCollections, filters: ExportFilter) -> Where:
    first = microseconds(filters.date_from) if filters.date_from else None
    last = microseconds(filters.date_to) - 1 if filters.date_to else None
    return where_of(filters.tags[: collections.api.limits.terms], first, last)
