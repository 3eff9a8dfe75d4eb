"""Recalling: the memories that answer a question, corrections before what they correct.

By meaning where an embedder can be had and made the vectors here, else by words; what has no
vector is found by words in either case. Contents are others' text: they are cut to a bounded size,
and what is hidden in them is named.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tribal_mcp.errors import UsageError
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.hidden_characters import hidden_characters
from tribal_mcp.portability.memory import MemoryEntry, date_text
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.services.embedders import EmbedderOf, fits, meaning_of
from tribal_mcp.services.memories.bm25 import WordSearch
from tribal_mcp.services.memory_results import Hit, RecallResult
from tribal_mcp.services.other_models import others_in
from tribal_mcp.stores.base import BATCH, UNDATED
from tribal_mcp.stores.search import SearchableStore

MOST = 20
"""Memories in one answer."""
QUERY = 2_000
"""Characters of a query."""
ANSWER_BYTES = 20_000
"""An answer as JSON: about half of what hosts give to a model without a warning."""
_CONTENT_BYTES = 16_000
_LEAST_BYTES = 40
_TAGS_LENGTH = 200
_DIGITS = 4
_FORKS = 5
"""Corrections of one memory that are looked at: the latest."""

By = Literal["meaning", "words"]


@dataclass(frozen=True, slots=True)
class Found:
    """A memory that was found."""

    id: str
    by: By
    score: float


@dataclass(slots=True)
class Family:
    """Memories with those that correct them, as far as they are here.

    Attributes:
        entries: the memories, by id.
        corrections: for each, the ids of those that correct it, oldest first.
        complete: whether all corrections of corrections were looked at.
    """

    entries: dict[str, MemoryEntry] = field(default_factory=dict)
    corrections: dict[str, list[str]] = field(default_factory=dict)
    complete: bool = True

    @classmethod
    async def of(cls, store: SearchableStore, ids: Iterable[str]) -> "Family":
        """The memories of those ids, their corrections, the corrections of these, and so on."""
        family = cls()
        new = list(ids)
        while new:
            family.entries |= await store.get_many(new, vectors=False)
            found = {i: ids[-_FORKS:] for i, ids in (await store.corrections(new)).items()}
            family.corrections |= found
            new = [i for ids in found.values() for i in ids if i not in family.entries]
            if len(family.entries) + len(new) > BATCH:
                family.complete = False
                break
        family.corrections = {
            i: known
            for i, ids in family.corrections.items()
            if (
                known := [
                    c for c in ids if c in family.entries and family.entries[c].supersedes == i
                ]
            )
        }
        return family

    def with_corrections(self, memory_id: str) -> list[str]:
        """The id and those that correct it, each behind all of its own corrections."""
        line = dict.fromkeys([memory_id])
        for one in (queue := [memory_id]):
            for correction in self.corrections.get(one, ()):
                if correction not in line:  # a circle of corrections has no end
                    line[correction] = None
                    queue.append(correction)
        return list(line)[::-1]


async def recall(
    store: SearchableStore,
    embedder_of: EmbedderOf,
    query: str,
    count: int,
    filters: ExportFilter,
) -> RecallResult:
    """Find the memories that answer a query.

    Args:
        store: where they are.
        embedder_of: gives the embedder of a store.
        query: a question or some words.
        count: how many at most, from 1 to `MOST`.
        filters: which memories.

    Raises:
        UsageError: the query is empty or too long, or the count out of its range.
        StoreError: the store can't be read.
    """
    _check(query, count)
    state = await store.state()
    meaning = meaning_of(state, embedder_of)
    vector, why_not = None, ""
    others: Collection[str] = ()
    if state.has_vectors:
        vector, why_not = await meaning.vector(query, query=True)
    async with store.session():
        state = await store.state()
        if (
            meaning.embedder is not None
            and vector is not None
            and not fits(meaning.embedder, state)
        ):
            vector, why_not = None, "The store has just been moved to another model; ask again."
        if vector is None:
            found = await _by_words(store, query, await store.list_ids(filters), 2 * count)
        else:
            others = await others_in(store, state.identity)
            found = await _by_meaning(store, vector, query, count, filters, others=others)
        family = await Family.of(store, [hit.id for hit in found])
    result = RecallResult(searched_by="words" if vector is None else "meaning")
    if why_not:
        result.notes.append(f"Searched by words only. {why_not}")
    elif state.pending:
        result.notes.append(
            f"{_memories(state.pending)} without a vector can only be found by words. "
            + (meaning.why_not or "tribal_reembed gives them one.")
        )
    if others:
        result.notes.append(
            f"{_memories(len(others))} with a vector of another model than {state.identity} can "
            "only be found by words. tribal_reembed (all=true) makes those vectors anew."
        )
    if not family.complete:
        result.notes.append("Not all corrections of corrections were looked at: they are too many.")
    _fill(result, _ranked(found, family, filters)[:count], filters)
    return result


def _check(query: str, count: int) -> None:
    if not query.strip():
        raise UsageError("The query is empty. Give a question, or some words to look for.")
    if len(query) > QUERY:
        raise UsageError(
            f"The query has {len(query):,} characters; {QUERY:,} is the most. Give a question, or "
            "some words to look for."
        )
    if not 1 <= count <= MOST:
        raise UsageError(f"count is {count}; give a number from 1 to {MOST}.")


async def _by_words(
    store: SearchableStore, query: str, ids: Sequence[str], count: int
) -> list[Found]:
    search = WordSearch(query)
    async for texts in store.read_texts(ids):
        search.look(texts)
    return [Found(memory_id, "words", score) for memory_id, score in search.best(count)]


async def _by_meaning(
    store: SearchableStore,
    vector: Vector,
    query: str,
    count: int,
    filters: ExportFilter,
    *,
    others: Collection[str],
) -> list[Found]:
    """The nearest; of those that have no vector to compare the best by words take half the places.

    `others` are the memories whose vectors are of another model.
    """
    near = await store.nearest(vector, 2 * count, filters, without=others)
    bare = await store.list_pending(filters)
    if others:
        bare += [i for i in await store.list_ids(filters) if i in others]
    words = await _by_words(store, query, bare, count)
    first = count - min(len(words), count // 2)
    hits = [Found(i, "meaning", score) for i, score in near]
    return hits[:first] + words + hits[first:]


def _ranked(found: Sequence[Found], family: Family, filters: ExportFilter) -> list[Hit]:
    """What was found, each behind what corrects it, as far as the filter takes that."""
    by_id = {one.id: one for one in found}
    ids = dict.fromkeys(i for one in found for i in family.with_corrections(one.id))
    hits: list[Hit] = []
    for memory_id in ids:
        entry, one = family.entries.get(memory_id), by_id.get(memory_id)
        if entry is not None and (one or filters.matches(entry)):
            hits.append(
                Hit(
                    id=memory_id,
                    content=entry.content,
                    tags=_few(entry.tags),
                    created_at="" if UNDATED in entry.extra else date_text(entry, "created_at"),
                    found_by=one.by if one else "correction",
                    score=round(one.score, _DIGITS) if one else None,
                    superseded_by=family.corrections.get(memory_id, []),
                    hidden=hidden_characters(entry.content),
                )
            )
    return hits


def _few(tags: list[str]) -> list[str]:
    """The first tags, as many as are read at a glance."""
    shown: list[str] = []
    room = _TAGS_LENGTH
    for tag in tags:
        if room < len(tag):
            return [*shown, f"… and {len(tags) - len(shown):,} more"]
        shown.append(tag)
        room -= max(1, len(tag))
    return shown


def _fill(result: RecallResult, hits: list[Hit], filters: ExportFilter) -> None:
    """Put the hits in, with as much of their contents as an answer may have."""
    share = _CONTENT_BYTES // max(1, len(hits))
    left_out = 0
    while True:
        result.hits = [_cut(hit, share) for hit in hits]
        result.next_step = _next_step(result, left_out, filters)
        if len(result.model_dump_json().encode()) <= ANSWER_BYTES or not hits:
            return
        if share > _LEAST_BYTES:
            share //= 2
        else:  # somebody gave a memory an id as long as a book
            hits, left_out = hits[:-1], left_out + 1


def _cut(hit: Hit, size: int) -> Hit:
    data = hit.content.encode()
    if len(data) <= size:
        return hit
    shown = data[:size].decode(errors="ignore")
    return hit.model_copy(
        update={"content": f"{shown}…", "left_out": len(hit.content) - len(shown)}
    )


def _next_step(result: RecallResult, left_out: int, filters: ExportFilter) -> str:
    steps: list[str] = []
    if left_out:
        steps.append(f"{_memories(left_out)} are too large to be shown; an export has them.")
    if not result.hits and not left_out:
        return (
            f"Nothing was found in {filters.in_words()}. Try other words"
            f"{', or leave the tags and dates out' if filters else ''}."
        )
    if any(hit.left_out for hit in result.hits):
        steps.append("To read more of a text that is cut, ask for fewer (count=1).")
    if any(hit.superseded_by for hit in result.hits):
        steps.append("Go by the corrections: what has superseded_by is out of date.")
    steps.append(
        "Correct one with tribal_remember and supersedes=its id; remove one with tribal_forget."
    )
    return " ".join(steps)


def _memories(count: int) -> str:
    return "1 memory" if count == 1 else f"{count:,} memories"
