"""The Python API for export and import, on a Chroma folder and in memory."""

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.examples import BEGIN, SAMPLES, memories, memory
from tribal_mcp.errors import BundleError, NoSpace, UsageError
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.manifest import EmbeddingManifest, create_embedding_metadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.import_export import (
    ConflictResolution,
    ExportFilter,
    ReembeddingStrategy,
    entry_from_dict,
    entry_to_dict,
    export_memories,
    export_memories_streaming,
    import_memories,
)
from tribal_mcp.stores.base import Change, MemoryStore
from tribal_mcp.stores.chroma.store import open_store
from tribal_mcp.stores.in_memory import InMemoryStore

pytestmark = pytest.mark.anyio

MODEL = create_embedding_metadata("all-MiniLM-L6-v2", 8, "onnx")
OTHER = create_embedding_metadata("BAAI/bge-small-en-v1.5", 8, "fastembed")


@pytest.fixture(params=["in memory", "chroma folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore:
    return InMemoryStore() if request.param == "in memory" else open_store(tmp_path / "chroma")


def bundle_of(entries: list[MemoryEntry], model: object = MODEL) -> PortableBundle:
    return PortableBundle(EmbeddingManifest(model), entries)  # type: ignore[arg-type]


async def contents(store: MemoryStore) -> dict[str, MemoryEntry]:
    return await store.get_many(await store.list_ids())


# Export


async def test_a_bundle_is_the_same_after_export_and_import_through_a_file(
    store: MemoryStore,
) -> None:
    await store.upsert([*memories(5), memory(5, embedding=None)])
    bundle = await export_memories(store, MODEL)
    read = PortableBundle.from_dict(json.loads(json.dumps(bundle.to_dict(), default=str)))
    assert read.entries == bundle.entries == [*memories(5), memory(5, embedding=None)]
    assert read.manifest.embedding == MODEL
    assert read.manifest.memory_count == 6


async def test_the_model_that_the_store_recorded_takes_precedence_over_the_given_one(
    store: MemoryStore,
) -> None:
    await store.set_identity(MODEL)
    await store.upsert(memories(2))
    bundle = await export_memories(store, OTHER)
    assert bundle.manifest.embedding == MODEL
    assert "were made by all-MiniLM-L6-v2" in " ".join(bundle.notes)


async def test_export_refuses_a_model_with_other_dimensions_than_the_vectors(
    store: MemoryStore,
) -> None:
    await store.upsert(memories(2))
    with pytest.raises(UsageError, match="8 dimensions"):
        await export_memories(store, create_embedding_metadata("large", 1536))


async def test_export_names_an_unrecorded_model_as_unknown(
    store: MemoryStore,
) -> None:
    await store.upsert(memories(2))
    bundle = await export_memories(store)
    assert bundle.manifest.to_dict()["embedding"]["model_name"] == "unknown"
    assert "unknown" in " ".join(bundle.notes)


async def test_a_limit_truncates_the_export_and_says_so(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    await store.upsert(memories(10))
    with caplog.at_level(logging.WARNING):
        bundle = await export_memories(store, MODEL, ExportFilter(tags=["work"]), limit=3)
    assert [entry.id for entry in bundle.entries] == ["memory-1", "memory-3", "memory-5"]
    assert bundle.manifest.memory_count == 3
    assert "5 memories match and the limit is 3" in bundle.notes[0]
    assert bundle.notes[0] in caplog.text


async def test_a_limit_that_is_not_reached_is_not_mentioned(store: MemoryStore) -> None:
    await store.upsert(memories(3))
    assert (await export_memories(store, MODEL, limit=3)).notes == []


async def test_a_limit_below_one_is_refused(store: MemoryStore) -> None:
    with pytest.raises(UsageError, match="limit is 0"):
        await export_memories(store, MODEL, limit=0)


async def test_tags_and_dates_must_both_match(store: MemoryStore) -> None:
    await store.upsert(memories(6))
    filters = ExportFilter(tags=["work"], date_from=BEGIN + timedelta(hours=2))
    bundle = await export_memories(store, MODEL, filters)
    assert [entry.id for entry in bundle.entries] == ["memory-3", "memory-5"]


async def test_a_stream_yields_every_match_once_and_continues_after_pages_without_one(
    store: MemoryStore,
) -> None:
    await store.upsert([memory(n, tags=["rare"] if n == 49 else []) for n in range(50)])
    stream = export_memories_streaming(store, MODEL, batch_size=7)
    assert [entry.id async for entry in stream] == [f"memory-{n}" for n in range(50)]
    rare = export_memories_streaming(store, MODEL, ExportFilter(tags=["rare"]), batch_size=7)
    assert [entry.id async for entry in rare] == ["memory-49"]


async def test_a_stream_continues_while_others_delete_and_add(store: MemoryStore) -> None:
    await store.upsert(memories(30))
    seen: list[str] = []
    async for entry in export_memories_streaming(store, MODEL, batch_size=5):
        if not seen:
            await store.delete([f"memory-{n}" for n in range(0, 30, 3)])
            await store.upsert([memory(100)])
        seen.append(entry.id)
    untouched = [f"memory-{n}" for n in range(30) if n % 3]
    assert [i for i in seen if i in untouched] == untouched
    assert len(seen) == len(set(seen))


async def test_consecutive_ranges_cover_every_memory_exactly_once(store: MemoryStore) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    month = timedelta(days=30)
    seams = [start + month * n for n in range(4)]
    around = [seam + timedelta(microseconds=d) for seam in seams for d in (-1, 0, 1)]
    entries = [memory(n, created_at=moment) for n, moment in enumerate(around)]
    await store.upsert(entries)
    found: list[str] = []
    for n in range(-1, 4):
        filters = ExportFilter(date_from=start + month * n, date_to=start + month * (n + 1))
        found += [e.id for e in (await export_memories(store, MODEL, filters)).entries]
    assert sorted(found) == sorted(entry.id for entry in entries)


def test_an_entry_is_the_same_after_conversion_to_a_dict_and_back() -> None:
    entry = memory(1, metadata={"k": [1, None]}, extra={"x": 1}, source_type="odd")
    assert entry_from_dict(json.loads(json.dumps(entry_to_dict(entry)))) == entry


# Import


HERE = memory(1, content="here", updated_at=BEGIN + timedelta(days=2))
OLDER = memory(1, content="older", updated_at=BEGIN + timedelta(days=1))
NEWER = memory(1, content="newer", updated_at=BEGIN + timedelta(days=3))
SAME_TIME = memory(1, content="other", updated_at=BEGIN + timedelta(days=2))
SKIP, OVERWRITE, MERGE, KEEP_BOTH, FAIL, _MIRROR = ConflictResolution

CONFLICTS = {
    # incoming, strategy -> the result, (imported, skipped, overwritten)
    "skip keeps the memory here": (NEWER, SKIP, HERE, (0, 1, 0)),
    "overwrite takes the bundle's": (OLDER, OVERWRITE, OLDER, (0, 0, 1)),
    "merge takes the newer": (NEWER, MERGE, NEWER, (0, 0, 1)),
    "merge leaves the older": (OLDER, MERGE, HERE, (0, 1, 0)),
    "merge keeps the one here at the same time": (SAME_TIME, MERGE, HERE, (0, 1, 0)),
    "the same is skipped by skip": (HERE, SKIP, HERE, (0, 1, 0)),
    "the same is skipped by overwrite": (HERE, OVERWRITE, HERE, (0, 1, 0)),
    "the same is skipped by merge": (HERE, MERGE, HERE, (0, 1, 0)),
}


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "for real"])
@pytest.mark.parametrize("case", CONFLICTS)
async def test_each_strategy_decides_which_side_stays_for_a_common_id(
    store: MemoryStore, case: str, dry_run: bool
) -> None:
    incoming, strategy, stays, counts = CONFLICTS[case]
    await store.set_identity(MODEL)
    await store.upsert([HERE])
    summary = await import_memories(
        bundle_of([incoming, memory(2)]), store, MODEL, strategy, dry_run=dry_run
    )
    assert (summary.imported - 1, summary.skipped, summary.overwritten) == counts
    assert summary.total == 2
    assert summary.errors == 0
    expected = {"memory-1": HERE} if dry_run else {"memory-1": stays, "memory-2": memory(2)}
    assert await contents(store) == expected


@pytest.mark.parametrize(
    "embeddings", [ReembeddingStrategy.AUTO, ReembeddingStrategy.KEEP, ReembeddingStrategy.DROP]
)
@pytest.mark.parametrize("conflicts", [SKIP, OVERWRITE, MERGE, KEEP_BOTH])
async def test_a_dry_run_writes_nothing_and_predicts_the_real_run(
    store: MemoryStore, conflicts: ConflictResolution, embeddings: ReembeddingStrategy
) -> None:
    await store.set_identity(MODEL)
    await store.upsert([HERE, memory(2), memory(3, embedding=None)])
    incoming = bundle_of([NEWER, memory(2), memory(3), memory(4), memory(5, embedding=None)], OTHER)
    incoming.rejected = [RejectedEntry("entry 6", "content is missing")]
    before = await contents(store)
    dry = await import_memories(incoming, store, MODEL, conflicts, embeddings, dry_run=True)
    assert await contents(store) == before
    real = await import_memories(incoming, store, MODEL, conflicts, embeddings)
    only = {"dry_run", "duration_ms", "restore_point", "changes"}
    assert dry.model_dump(exclude=only) == real.model_dump(exclude=only)
    assert (dry.dry_run, real.dry_run) == (True, False)
    assert real.total == real.imported + real.skipped + real.overwritten + real.errors == 6
    assert await store.count() == 3 + real.imported


async def test_import_counts_the_reasons_for_skipping(store: MemoryStore) -> None:
    await store.set_identity(MODEL)
    await store.upsert([HERE, memory(2), memory(3)])
    entries = [SAME_TIME, memory(2), memory(3, content="old", updated_at=BEGIN)]
    summary = await import_memories(bundle_of(entries), store, conflict_resolution=MERGE)
    assert (summary.skipped, summary.identical, summary.older, summary.conflicts) == (3, 1, 1, 1)


async def test_merge_adds_a_vector_that_the_stored_memory_lacks(store: MemoryStore) -> None:
    await store.set_identity(MODEL)
    await store.upsert([memory(1, embedding=None)])
    summary = await import_memories(bundle_of([memory(1)]), store, conflict_resolution=MERGE)
    assert summary.overwritten == 1
    assert await store.get("memory-1") == memory(1)


async def test_repeating_an_import_changes_nothing(store: MemoryStore) -> None:
    bundle = bundle_of([*memories(5), memory(5, embedding=None)])
    await import_memories(bundle, store)
    before = await contents(store)
    for strategy in ConflictResolution:
        summary = await import_memories(bundle, store, conflict_resolution=strategy)
        assert (summary.skipped, summary.identical) == (6, 6)
    assert await contents(store) == before


@pytest.mark.parametrize(
    ("model", "strategy", "kept"),
    [
        (MODEL, ReembeddingStrategy.AUTO, True),
        (MODEL, ReembeddingStrategy.KEEP, True),
        (OTHER, ReembeddingStrategy.AUTO, False),
        (MODEL, ReembeddingStrategy.DROP, False),
    ],
    ids=["auto, same model", "keep, same model", "auto, another", "drop"],
)
async def test_each_embedding_strategy_keeps_or_drops_vectors(
    store: MemoryStore, model: object, strategy: ReembeddingStrategy, kept: bool
) -> None:
    await store.set_identity(MODEL)
    await store.upsert([memory(0)])
    bundle = bundle_of([memory(1), memory(2, embedding=None)], model)
    summary = await import_memories(bundle, store, MODEL, embedding_strategy=strategy)
    expected = memory(1) if kept else memory(1, embedding=None)
    assert await store.get("memory-1") == expected
    assert await store.get("memory-2") == memory(2, embedding=None)
    assert summary.vectors_kept == kept
    assert summary.vectors_dropped == (not kept)
    assert summary.without_vector == 2 - kept
    assert summary.needs_reembedding
    assert (await store.state()).identity == MODEL


async def test_needs_reembedding_is_false_if_no_vector_is_missing(store: MemoryStore) -> None:
    assert not (await import_memories(bundle_of(memories(2)), store)).needs_reembedding


async def test_an_empty_store_takes_over_the_model_of_the_bundle(store: MemoryStore) -> None:
    preview = await import_memories(bundle_of(memories(2)), store, dry_run=True)
    assert (await store.state()).identity is None
    summary = await import_memories(bundle_of(memories(2)), store)
    assert summary.vectors_kept == preview.vectors_kept == 2
    assert (await store.state()).identity == MODEL


async def test_a_bundle_without_vectors_sets_no_model(store: MemoryStore) -> None:
    await import_memories(bundle_of([memory(1, embedding=None)]), store)
    assert (await store.state()).identity is None


async def test_rejected_entries_are_errors_and_the_others_are_imported(store: MemoryStore) -> None:
    bundle = bundle_of(memories(2))
    bundle.rejected = [RejectedEntry(f"entry {n}", "content is missing") for n in range(150)]
    summary = await import_memories(bundle, store)
    assert (summary.total, summary.imported, summary.errors) == (152, 2, 150)
    assert len(summary.error_details) == 100
    assert summary.error_details[0] == "entry 0: content is missing"


async def test_import_reports_progress_up_to_the_total(store: MemoryStore) -> None:
    calls: list[tuple[int, int]] = []
    await import_memories(
        bundle_of(memories(1200)), store, on_progress=lambda *call: calls.append(call)
    )
    assert calls == [(500, 1200), (1000, 1200), (1200, 1200)]


async def test_a_failed_import_says_what_was_done_and_repeating_it_completes_it(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = store.apply
    calls = 0

    async def fails_once(change: Change) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise NoSpace("The disk is full.")
        await apply(change)

    monkeypatch.setattr(store, "apply", fails_once)
    bundle = bundle_of(memories(1100))
    with pytest.raises(NoSpace, match=r"500 of 1,100 entries had .* repeat the import"):
        await import_memories(bundle, store)
    assert await store.count() == 500
    summary = await import_memories(bundle, store)
    assert (summary.imported, summary.identical) == (600, 500)
    assert list((await contents(store)).values()) == memories(1100)


async def test_a_dry_run_leaves_no_files(tmp_path: Path) -> None:
    folder = tmp_path / "chroma"
    async with open_store(folder) as store:
        summary = await import_memories(bundle_of(memories(2)), store, dry_run=True)
    assert summary.imported == 2
    assert not folder.exists()


# Arguments

SAMPLE_BUNDLE = bundle_of(memories(2))


async def _streamed(**arguments: object) -> list[MemoryEntry]:
    stream = export_memories_streaming(InMemoryStore(), **arguments)  # type: ignore[arg-type]
    return [entry async for entry in stream]


@pytest.mark.parametrize("size", [0, -1, "5", True, 1.0])
async def test_a_batch_size_that_is_no_positive_integer_is_refused(size: object) -> None:
    with pytest.raises(UsageError, match="batch_size is"):
        await _streamed(batch_size=size)


@pytest.mark.parametrize(
    "arguments",
    [{"limit": "5"}, {"limit": True}, {"since": "2026-01-15"}, {"filters": {"tags": ["a"]}}],
    ids=str,
)
async def test_an_export_refuses_arguments_of_other_types(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(arguments))):
        await export_memories(InMemoryStore(), MODEL, **arguments)  # type: ignore[arg-type]


async def _async_progress(_done: int, _total: int) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    "arguments",
    [
        {"bundle": SAMPLE_BUNDLE.to_dict()},
        {"target_metadata": "all-MiniLM-L6-v2"},
        {"conflict_resolution": "replace"},
        {"embedding_strategy": 1},
        {"dry_run": "false"},
        {"on_progress": _async_progress},
        {"on_progress": 5},
    ],
    ids=lambda arguments: "-".join(f"{k} {type(v).__name__}" for k, v in arguments.items()),
)
async def test_an_import_refuses_arguments_of_other_types(arguments: dict[str, object]) -> None:
    store = InMemoryStore()
    given = {"bundle": SAMPLE_BUNDLE, "store": store} | arguments
    with pytest.raises(UsageError, match=next(iter(arguments))):
        await import_memories(**given)  # type: ignore[arg-type]
    assert await store.list_ids() == []


async def test_none_means_not_given() -> None:
    store = InMemoryStore()
    summary = await import_memories(
        SAMPLE_BUNDLE,
        store,
        None,
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        dry_run=None,  # type: ignore[arg-type]
        on_progress=None,
    )
    assert summary.imported == 2
    exported = await export_memories(store, None, None, None, since=None)
    assert len(exported.entries) == 2


async def test_a_bundle_made_in_code_is_checked_like_a_file() -> None:
    bundle = PortableBundle(EmbeddingManifest(MODEL, schema_version="99.0"), memories(1))
    with pytest.raises(BundleError, match=r"schema version '99\.0'"):
        await import_memories(bundle, InMemoryStore())


async def test_keep_refuses_vectors_that_the_model_of_an_empty_store_cannot_join() -> None:
    store = InMemoryStore()
    with pytest.raises(UsageError, match="8 dimensions"):
        await import_memories(
            SAMPLE_BUNDLE,
            store,
            create_embedding_metadata("large", 16),
            embedding_strategy=ReembeddingStrategy.KEEP,
        )
    assert await store.identity() is None


async def test_the_answer_of_the_http_server_of_tribalmemory_is_a_bundle() -> None:
    bundle = PortableBundle.from_dict(json.loads((SAMPLES / "http-answer.json").read_text()))
    assert (await import_memories(bundle, InMemoryStore())).imported == 3
