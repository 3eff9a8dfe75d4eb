"""The use case: find the memories that answer a question, with their newest versions; or list them.

Semantic and keyword search together if the embedder of the store's vectors is available, else
keyword search alone.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import partial

from tribal_mcp.embedding.providers import embedder_of as configured_embedder
from tribal_mcp.errors import Stopped, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.filters import ExportFilter, read_filter
from tribal_mcp.search.dates import Period
from tribal_mcp.search.fusion import Scored
from tribal_mcp.services.context import Context
from tribal_mcp.services.embedders import (
    CHANGE_MODEL,
    MODEL_CHANGED,
    EmbedderOf,
    Reason,
    StoreEmbedder,
    embedder_for,
    fits,
)
from tribal_mcp.services.left_out import describe_empty, describe_undated, without_vector
from tribal_mcp.services.memories.answer import fill, hit_of
from tribal_mcp.services.memories.corrections import Chain, Corrections, chains_of
from tribal_mcp.services.memories.search import Search
from tribal_mcp.services.other_models import other_models_in
from tribal_mcp.services.requests import ListRequest, RecallRequest
from tribal_mcp.services.results.memories import Hit, RecallResult
from tribal_mcp.stores.base import StoreState
from tribal_mcp.stores.factory import Store
from tribal_mcp.stores.search import SearchableStore
from tribal_mcp.text import counted, memories

MOST = 20
"""Memories in one answer."""
_PAGES = 1_000_000
QUERY = 2_000
"""Characters of a query."""
_DIGITS = 2
_WEAK = 5
"""Weak matches that are shown if there are no others."""
_NEAR = 0.5
_ROUNDS = 4
"""Searches for one query: more than one if many versions of the same memories match."""

_EMBED_MISSING = NextStep("To embed the memories without a vector, run {call}.", "reembed")


async def run_recall(context: Context, request: RecallRequest) -> RecallResult:
    """Find memories."""
    filters = read_filter(request.tags, request.date_from, request.date_to)
    if not request.query.strip():
        return await run_list(context, ListRequest(**request.model_dump(exclude={"query"})))
    if request.page != 1:
        raise UsageError(
            "Only a list without a query has pages. Leave out the query or the page; for more "
            "memories that answer the query, ask for more at once."
        )
    embedder_of = partial(configured_embedder, context.settings)
    watch = context.watch("Indexed", "memories for search")

    def on_step(done: int, total: int) -> None:
        watch.report(done, total)
        if context.stop():
            raise Stopped(
                f"Stopped. {done:,} of {memories(total)} are indexed. To continue, search."
            )

    async with context.store() as store:
        await store.prepare_search(on_step)
        result = await recall(
            store, embedder_of, request.query, request.count, filters, said=context.said
        )
        return await _explained(result, store, context, filters)


async def run_list(context: Context, request: ListRequest) -> RecallResult:
    """List the newest memories."""
    filters = read_filter(request.tags, request.date_from, request.date_to)
    async with context.store() as store:
        return await _explained(await list_newest(store, request), store, context, filters)


async def _explained(
    result: RecallResult, store: Store, context: Context, filters: ExportFilter
) -> RecallResult:
    """The result, with notes of what is not in it; if it is empty, of where it looked."""
    if not result.hits:
        result.notes += await describe_empty(store, context.settings)
    result.notes += await describe_undated(store, filters)
    return result


async def list_newest(store: SearchableStore, request: ListRequest) -> RecallResult:
    """A page of the memories created last, newest first.

    Args:
        store: where they are.
        request: which memories; the page, from 1; and how many are on a page, from 1 to `MOST`.

    Raises:
        UsageError: the page, the count or a filter is not valid.
        StoreError: the store can't be read.
    """
    filters = read_filter(request.tags, request.date_from, request.date_to)
    page, count = request.page, request.count
    _check_count(count)
    if not 1 <= page <= _PAGES:
        raise UsageError(f"The page is {page}. Give a number from 1 to {_PAGES:,}.")
    async with store.session():
        ids, total = await store.newest(filters, skip=(page - 1) * count, count=count)
        known = Corrections(
            await store.get_many(ids, vectors=False), await store.corrections(ids) if ids else {}
        )
    result = RecallResult(searched_by="date", total=total)
    hits = [hit_of(i, known) for i in ids if i in known.entries]
    fill(result, hits, filters)
    pages = -(-total // count)
    if page > pages and total:
        result.next_steps = [
            NextStep(f"There {'is' if pages == 1 else 'are'} only {counted(pages, 'page')}.")
        ]
    elif page < pages:
        given = request.model_dump(exclude_defaults=True) | {"page": page + 1, "count": count}
        text = f"This is page {page} of {pages:,}. For the next page, run {{call}}."
        result.next_steps.insert(0, NextStep(text, "list", given))
    return result


async def recall(
    store: SearchableStore,
    embedder_of: EmbedderOf,
    query: str,
    count: int,
    filters: ExportFilter,
    *,
    said: set[str] | None = None,
    now: datetime | None = None,
) -> RecallResult:
    """Find the memories that answer a query.

    Args:
        store: where they are.
        embedder_of: gives the embedder of a store.
        query: a question or some keywords.
        count: how many at most, from 1 to `MOST`.
        filters: which memories to search.
        said: what was said about the settings before, and need not be repeated.
        now: the time of the query, for words such as "last month"; by default the present.

    Raises:
        UsageError: the query is empty or too long, or the count is out of range.
        StoreError: the store can't be read.
    """
    _check(query, count)
    state = await store.state()
    found = embedder_for(state, embedder_of, said)
    vector, why_not = None, Reason()
    others: Collection[str] = ()
    if state.has_vectors:
        vector, why_not = await found.vector(query, query=True)
    async with store.session():
        if await store.identity() != state.identity:
            state = await store.state()
        if found.embedder is not None and vector is not None and not fits(found.embedder, state):
            vector, why_not = None, MODEL_CHANGED
        if vector is not None:
            others = await other_models_in(store, state.identity)
        search = Search(store, query, vector, filters, others, now or datetime.now(UTC))
        matches, chains, corrections = await _chains(search, count)
    result = RecallResult(searched_by="words" if vector is None else "meaning")
    about_vectors = _describe_search(result, state, found, why_not, len(others))
    shown = _shown(chains, count)
    _describe_matches(result, matches, chains, shown, search.period)
    if not corrections.complete:
        result.notes.append("There are too many corrections of corrections to read them all.")
    fill(result, _hits(shown, matches, corrections), filters)
    result.next_steps += about_vectors
    return result


async def _chains(search: Search, count: int) -> tuple[dict[str, Scored], list[Chain], Corrections]:
    """The best matches, each with its corrections: as many chains as asked for, if there are.

    Only if nothing fits are weak matches among them, and then a few.
    """
    matches: dict[str, Scored] = {}
    known, chains = Corrections(), list[Chain]()
    for _ in range(_ROUNDS):
        ranking = await search.ranking(without=known.entries)
        new = [one for one in ranking if one.id not in matches]
        matches |= {one.id: one for one in new}
        ordered = sorted(matches.values(), key=lambda one: -one.score)
        best = ordered[0].score if ordered else 0.0
        if any(not one.is_weak for one in ordered):
            ordered = [o for o in ordered if not o.is_weak or o.score >= _NEAR * best]
        else:
            ordered = ordered[:_WEAK]
        while len(chains) < count:
            unread = [one.id for one in ordered if one.id not in known.entries]
            if not unread:
                break
            known = known.joined(await Corrections.of(search.store, unread[: 2 * count]))
            chains = chains_of([one.id for one in ordered], known, search.filters)
        if len(chains) >= count or not new:
            break
    return matches, chains[:count], known


def _shown(chains: Sequence[Chain], count: int) -> list[str]:
    """The memories to show: of each chain the newest, then the one that was found if there is room.

    There are at most `count` chains.
    """
    room = count - len(chains)
    shown: list[str] = []
    for chain in chains:
        shown.append(chain.newest)
        if chain.found and room:
            shown.append(chain.found)
            room -= 1
    return list(dict.fromkeys(shown))


def _describe_matches(
    result: RecallResult,
    matches: dict[str, Scored],
    chains: Sequence[Chain],
    shown: Sequence[str],
    period: Period | None,
) -> None:
    """Note how well the matches fit, what is left out of their chains, and the period."""
    result.weak = bool(chains) and all(one.is_weak for one in matches.values())
    if result.weak:
        result.notes.append(
            "Nothing fits the question well. What follows is the nearest and may be unrelated."
        )
    if period is not None:
        result.notes.append(
            f"The question mentions {period.in_words()}: memories from then come first if they fit."
        )
    left_out = {i for chain in chains for i in (chain.found, *chain.left_out) if i} - {*shown}
    if left_out:
        result.notes.append(
            counted(
                len(left_out),
                "other version of these memories is left out.",
                "other versions of these memories are left out.",
            )
        )


def _describe_search(
    result: RecallResult, state: StoreState, found: StoreEmbedder, why_not: Reason, others: int
) -> Sequence[NextStep]:
    """Note which memories semantic search does not find; what to do about it."""
    steps: Sequence[NextStep] = ()
    if (why_not or found.why_not).said:
        pass
    elif why_not:
        result.notes.append(f"Used keyword search only. {why_not.sentence}")
        steps = why_not.next_steps
    elif state.pending:
        result.notes.append(f"{without_vector(state.pending)} {found.why_not.sentence}".rstrip())
        steps = found.why_not.next_steps if found.why_not else [_EMBED_MISSING]
    if others:
        result.notes.append(
            counted(
                others,
                f"memory has a vector of another model than {state.identity}, so only keyword "
                "search finds it.",
                f"memories have vectors of other models than {state.identity}, so only keyword "
                "search finds them.",
            )
        )
        return [*steps, CHANGE_MODEL]
    return steps


def _check(query: str, count: int) -> None:
    if not query.strip():
        raise UsageError("The query is empty. Give a question or some keywords.")
    _check_count(count)
    if len(query) > QUERY:
        raise UsageError(
            f"The query has {len(query):,} characters, and the limit is {QUERY:,}. Give a question "
            "or some keywords."
        )


def _check_count(count: int) -> None:
    if not 1 <= count <= MOST:
        raise UsageError(f"The count is {count}. Give a number from 1 to {MOST}.")


def _hits(shown: Sequence[str], matches: dict[str, Scored], known: Corrections) -> list[Hit]:
    hits: list[Hit] = []
    for memory_id in shown:
        one = matches.get(memory_id)
        hits.append(
            hit_of(
                memory_id,
                known,
                one.by if one else "correction",
                round(one.score, _DIGITS) if one else None,
            )
        )
    return hits
