"""The use case: embed the memories that have no vector, or all memories with another model."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from tribal_mcp.embedding.base import TextRefused
from tribal_mcp.embedding.providers import PROVIDERS, embedder_of, is_paid
from tribal_mcp.errors import EmbedderError, NoSpace, SystemFailure
from tribal_mcp.next_steps import NextStep
from tribal_mcp.services.context import Context
from tribal_mcp.services.embedders import CHANGE_MODEL, Work, fits
from tribal_mcp.services.left_out import describe_empty
from tribal_mcp.services.maintenance.change_model import change_model
from tribal_mcp.services.maintenance.missing_vectors import embed_missing, refuse_other_model
from tribal_mcp.services.other_models import other_models_in
from tribal_mcp.services.requests import ReembedRequest
from tribal_mcp.services.results.maintenance import ReembedResult
from tribal_mcp.stores.restore_points import RestorePoints
from tribal_mcp.stores.search import SearchableStore

_SAMPLE = 8
_CHARACTERS_PER_TOKEN = 4


async def run_reembed(context: Context, request: ReembedRequest) -> ReembedResult:
    """Make new vectors, or say what that would take."""
    begin = time.monotonic()

    def on_progress(done: int, total: int, left: str) -> None:
        message = f"Embedded {done:,} of {total:,} memories, about {left} left"
        context.progress(100 * done / total, message)

    async with context.store() as store:
        embedder = embedder_of(context.settings, await store.state())
        if embedder is None:
            raise EmbedderError(
                "No embedding model is configured. Set TRIBAL_EMBEDDING_PROVIDER to one of "
                f"{', '.join(PROVIDERS)}."
            )
        result = ReembedResult(model=str(embedder.identity), dry_run=request.dry_run)
        work = Work(embedder, result, on_progress, context.stop)
        if request.dry_run:
            if not request.all:
                refuse_other_model(embedder, await store.state())
            await preview(store, work, everything=request.all, paid=is_paid(embedder))
        else:
            points = RestorePoints.of(store, context.settings.restore_points)
            assert points is not None  # noqa: S101 - every store of the settings has a folder
            about = f"to {embedder.identity}" if request.all else "memories without a vector"
            point = points.begin("reembed", about, model=await store.identity())
            with closing(point), _continued_later():
                await (change_model if request.all else embed_missing)(store, work, point)
            count = result.total if request.all else result.embedded
            result.restore_point = point.finish({"embedded": count})
        if not result.total and not await store.count():
            result.notes += await describe_empty(store, context.settings)
    result.duration_ms = round((time.monotonic() - begin) * 1000)
    result.next_steps = next_steps(request, result)
    return result


@contextmanager
def _continued_later() -> Iterator[None]:
    try:
        yield
    except (SystemFailure, NoSpace) as error:
        raise error.extended(
            "No memory lost its vector, and those made so far are kept. To continue, repeat the "
            "call."
        ) from error


async def preview(store: SearchableStore, work: Work, *, everything: bool, paid: bool) -> None:
    """Count the memories, and estimate the time and the tokens."""
    if everything and not fits(work.embedder, await store.state()):
        ids = await store.list_ids()
    else:
        others = await other_models_in(store, work.embedder.identity) if everything else {}
        ids = [*others, *await store.list_pending()]
    result = work.result
    result.total = len(ids)
    characters = 0
    sample: list[str] = []
    async for texts in store.read_texts(ids):
        characters += sum(map(len, texts.values()))
        sample = sample or list(texts.values())[:_SAMPLE]
    if paid:
        result.about_tokens = characters // _CHARACTERS_PER_TOKEN
    elif sample:
        with suppress(TextRefused):
            await work.embedder.embed(sample[:1])  # the first call may load the model
        begin = time.monotonic()
        with suppress(TextRefused):
            await work.embedder.embed(sample)
        result.about_seconds = round((time.monotonic() - begin) / len(sample) * len(ids), 1)


def next_steps(request: ReembedRequest, result: ReembedResult) -> list[NextStep]:
    """What to do after it."""
    if result.dry_run:
        given = {"all": True} if request.all else {}
        return [NextStep("Nothing was changed. To embed them, run {call}.", "reembed", given)]
    if result.failed:
        step = "Memories whose text the model refused have no vector. Shorten them, or accept that."
        return [NextStep(step)]
    if not result.total:
        return [NextStep("Every memory has a vector."), CHANGE_MODEL]
    steps = [NextStep("Semantic search finds them now: {call}.", "recall", {"query": ...})]
    if result.restore_point:
        undo = {"point": result.restore_point}
        steps.append(NextStep("To undo this, run {call}.", "undo", undo))
    return steps
