"""Incremental exports: since a time and since an earlier bundle."""

import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bundles import MODEL, written
from tests.support.chroma_folders import add, chroma, existing, vectors
from tests.support.command_line import rows
from tests.support.examples import BEGIN, memories, memory
from tests.support.mcp_client import call, connected, text_of, write_bundle
from tests.support.next_steps import next_steps
from tribal_mcp import open_store
from tribal_mcp.cli import main as cli
from tribal_mcp.config import load
from tribal_mcp.errors import BundleError, Stopped, UsageError
from tribal_mcp.portability.bundle.layout import Layout
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.bundle.writer import Vectors
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.memory import from_microseconds, microseconds
from tribal_mcp.services.context import Context, Watch
from tribal_mcp.services.exporting.since import EarlierBundle, SinceTime
from tribal_mcp.services.import_export import (
    ConflictResolution,
    export_memories,
    import_memories,
)
from tribal_mcp.services.jobs import run
from tribal_mcp.services.results.bundles import ExportResult, ImportResult
from tribal_mcp.stores.base import Change, MemoryStore
from tribal_mcp.stores.chroma.api_reader import ApiFiles
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.in_memory import InMemoryStore
from tribal_mcp.stores.record import STORED

pytestmark = pytest.mark.anyio

NAMES = ("memories", "memories.pending", "memories.forgotten")
NEWER = BEGIN + timedelta(days=100)
"""A time after the dates of all memories and before they are written."""
OLD = datetime(1999, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["in memory", "chroma folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore:
    return InMemoryStore() if request.param == "in memory" else open_store(tmp_path / "chroma")


def now() -> datetime:
    return datetime.now(UTC)


def taken(bundle: PortableBundle) -> set[str]:
    return {entry.id for entry in bundle.entries}


def forgotten(bundle: PortableBundle) -> dict[str, int]:
    return {one.id: one.deleted_at_us for one in bundle.deleted}


# Since a time


async def test_since_a_time_selects_by_the_time_of_writing_and_ignores_the_dates_of_memories(
    store: MemoryStore,
) -> None:
    await store.upsert([*memories(3), memory(3, embedding=None), memory(9)])
    await store.delete(["memory-9"])
    before = now()
    await store.upsert([memory(1, tags=["new"]), memory(4, created_at=OLD, embedding=None)])
    await store.delete(["memory-0"])
    bundle = await export_memories(store, since=before)
    assert bundle.entries == [memory(1, tags=["new"]), memory(4, created_at=OLD, embedding=None)]
    assert forgotten(bundle) == await store.forgotten(["memory-0"])
    assert bundle.manifest.extra == {"since": before.isoformat()}
    assert bundle.manifest.memory_count == 2
    later = await export_memories(store, since=now())
    assert (later.entries, later.deleted) == ([], [])
    assert taken(await export_memories(store, since=OLD)) == {
        "memory-1", "memory-2", "memory-3", "memory-4",
    }  # fmt: skip


async def test_exporting_since_the_last_export_leaves_no_gap(store: MemoryStore) -> None:
    seen: set[str] = set()
    last = OLD
    for number in range(5):
        await store.upsert([memory(number)])
        bundle = await export_memories(store, since=last)
        assert taken(bundle) == {f"memory-{number}"}
        seen |= taken(bundle)
        last = datetime.fromisoformat(bundle.manifest.exported_at)
    assert len(seen) == 5


async def test_times_in_the_future_are_reported(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = datetime(2200, 1, 1, tzinfo=UTC)
    await store.upsert([memory(0)])
    with monkeypatch.context() as clock:
        clock.setattr(time, "time_ns", lambda: microseconds(ahead) * 1000)
        await store.upsert([memory(1)])

    async def notes(since: datetime) -> str:
        changed = await SinceTime(since).changed(
            store, ["memory-0", "memory-1"], filtered=False, watch=Watch()
        )
        return " ".join(changed.notes)

    assert "2200-01-01T00:00:00+00:00 is in the future" in await notes(ahead)
    assert "1 memory was stored at a time in the future" in await notes(OLD)
    await store.upsert([memory(1)])
    assert await notes(OLD) == ""


async def test_filters_and_time_must_both_match_and_all_deletions_since_are_included(
    store: MemoryStore,
) -> None:
    await store.upsert(memories(4))
    before = now()
    await store.upsert([memory(0), memory(1), memory(5)])
    await store.delete(["memory-2"])
    home = ExportFilter(tags=["home"])
    bundle = await export_memories(store, filters=home, since=before)
    assert taken(bundle) == {"memory-0"}
    assert forgotten(bundle).keys() == {"memory-2"}


async def test_a_filtered_export_has_no_tombstones_and_a_full_one_has_all(
    store: MemoryStore,
) -> None:
    await store.upsert(memories(4))
    await store.apply(Change(forget={"b": 2, "a": 2, "memory-3": 1}))
    whole = await export_memories(store)
    assert whole.deleted == [Tombstone("memory-3", 1), Tombstone("a", 2), Tombstone("b", 2)]
    assert whole.manifest.extra == {}
    assert (await export_memories(store, filters=ExportFilter(tags=["home"]))).deleted == []


async def test_a_memory_deleted_while_an_export_starts_is_in_it_once() -> None:
    class Busy(InMemoryStore):
        async def forgotten(self, ids: Sequence[str] | None = None) -> dict[str, int]:
            return {"memory-1": 1, **await super().forgotten(ids)}

    store = Busy()
    await store.upsert(memories(2))
    bundle = await export_memories(store)
    assert (taken(bundle), bundle.deleted) == ({"memory-0", "memory-1"}, [])
    PortableBundle.from_dict(bundle.to_dict())


async def test_the_time_of_writing_is_not_exported(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store") as store:
        await store.upsert([memory(0), memory(1, metadata={"own": 1, STORED: "theirs"})])
        bundle = await export_memories(store)
    assert bundle.entries[1].metadata == {"own": 1, STORED: "theirs"}
    assert STORED not in json.dumps(bundle.to_dict()["entries"][0])


async def test_memories_without_a_recorded_time_of_writing_are_selected_by_their_own_dates(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "store"
    async with open_store(folder) as store:
        await store.upsert(
            [
                memory(1),
                memory(2, updated_at=BEGIN + timedelta(days=9)),
                memory(3, embedding=None),
                memory(4),
            ]
        )
        await store.apply(Change(forget={"missing": microseconds(BEGIN), "away": 1}))
    with chroma(folder) as client:
        for name in NAMES:
            collection = existing(client, name)
            ids = [i for i in collection.get()["ids"] if i != "memory-4"]
            collection.update(ids, metadatas=[{STORED: None} for _ in ids])
        add(existing(client), ["stranger"], vectors(1), documents=["Tea"], metadatas={"by": "them"})
    since = BEGIN + timedelta(hours=2, minutes=30)
    expected = {"memory-2", "memory-3", "memory-4", "stranger"}
    async with open_store(folder) as store:
        bundle = await export_memories(store, since=since)
        assert taken(bundle) == expected
        assert [note for note in bundle.notes if "4 memories have no record of when" in note]
        assert (await store.stored_since(microseconds(BEGIN))).forgotten.keys() == {"missing"}
    with chroma(folder) as client, ChromaFiles(folder) as files:
        api = ApiFiles(client)
        for name in NAMES:
            asked, read = api.collection(name), files.collection(name)
            assert asked is not None
            assert read is not None
            for moment in (0, *map(microseconds, (BEGIN, since, NEWER)), 2**62):
                assert api.stored_since(asked, moment) == files.stored_since(read, moment)
            assert api.unrecorded(asked) == files.unrecorded(read) > 0


# Since an earlier bundle


async def test_since_a_bundle_selects_new_and_changed_memories(
    store: MemoryStore,
) -> None:
    await store.upsert([*memories(3), memory(3, embedding=None), memory(7)])
    await store.apply(Change(forget={"long-deleted": 1}))
    earlier = await export_memories(store)
    assert taken(await export_memories(store, since=earlier)) == set()
    await store.upsert([memory(1), memory(3), memory(5), memory(2, confidence=0.5)])
    await store.delete(["memory-0"])
    await store.apply(Change(erase=["memory-7"]))
    bundle = await export_memories(store, since=earlier)
    assert taken(bundle) == {"memory-2", "memory-3", "memory-5"}
    assert forgotten(bundle).keys() == {"memory-0"}
    assert bundle.manifest.extra == {
        "since": earlier.manifest.exported_at,
        "since_sha256": earlier.to_dict()["integrity"]["sha256"],
    }
    assert [n for n in bundle.notes if "1 memory in the earlier bundle but neither" in n]


async def test_memories_that_were_never_in_the_store_are_not_exported_as_deleted(
    store: MemoryStore,
) -> None:
    other = InMemoryStore()
    await other.upsert(memories(5))
    bundle = await export_memories(store, since=await export_memories(other))
    assert (bundle.entries, bundle.deleted) == ([], [])
    assert any("5 memories in the earlier bundle but neither" in n for n in bundle.notes)


async def test_a_filtered_incremental_export_has_only_tombstones_of_the_earlier_bundle(
    store: MemoryStore,
) -> None:
    home = ExportFilter(tags=["home"])
    await store.upsert(memories(6))
    earlier = await export_memories(store, filters=home)
    await store.upsert([memory(2, content="changed"), memory(3, content="changed")])
    await store.delete(["memory-0", "memory-1"])
    bundle = await export_memories(store, filters=home, since=earlier)
    assert taken(bundle) == {"memory-2"}
    assert forgotten(bundle).keys() == {"memory-0"}


async def test_an_incremental_bundle_is_refused_as_a_starting_point(store: MemoryStore) -> None:
    changes = await export_memories(store, since=OLD)
    with pytest.raises(UsageError, match="is an incremental bundle") as error:
        await export_memories(store, since=changes)
    assert f"export(since={changes.manifest.exported_at!r})" in next_steps(error.value)


FILES: list[tuple[Layout, Vectors]] = [
    ("json", "numbers"),
    ("jsonl", "numbers"),
    ("json", "base64"),
]


@pytest.mark.parametrize(("layout", "numbers"), FILES)
async def test_an_earlier_bundle_is_compared_by_content_in_any_layout(
    store: MemoryStore, layout: Layout, numbers: Vectors
) -> None:
    entries = [
        memory(0, metadata={"b": 1, "a": [1.5]}),
        memory(1, verbatim={"created_at": "2026-01-01T01:00:00Z"}),
        *memories(9)[2:],
    ]
    await store.upsert(entries)
    data = written(entries, layout, "gzip", numbers, deleted=[Tombstone("missing", 1)])
    earlier = EarlierBundle.read(BundleReader(BytesIO(data)), "it")
    assert earlier.deleted == {"missing": 1}
    result = await earlier.changed(
        store,
        await store.list_ids(),
        filtered=False,
        watch=Watch(),
    )
    assert (result.ids, result.deleted, result.notes) == ([], {}, [])
    pretty = json.dumps(json.loads(written(entries)), indent=2).encode()
    assert EarlierBundle.read(BundleReader(BytesIO(pretty)), "it").entries == earlier.entries


async def test_the_comparison_reports_progress_and_can_be_stopped() -> None:
    store = InMemoryStore()
    await store.upsert(memories(600))
    earlier = EarlierBundle.of(await export_memories(store))
    seen: list[tuple[int, int]] = []
    ids = await store.list_ids()
    watch = Watch(lambda *at: seen.append(at))
    await earlier.changed(store, ids, filtered=False, watch=watch)
    assert seen == [(250, 600), (500, 600), (600, 600)]
    with pytest.raises(Stopped, match="No file was written"):
        await earlier.changed(store, ids, filtered=False, watch=Watch(stop=lambda: True))


# Stores that are kept in sync


STEPS = st.lists(
    st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=4),
    min_size=1,
    max_size=5,
)


@given(STEPS, st.booleans(), st.randoms(use_true_random=False))
def test_incremental_bundles_in_any_order_give_the_same_store(
    steps: list[list[tuple[bool, int]]], by_bundle: bool, dice: random.Random
) -> None:
    async def go() -> None:
        store = InMemoryStore()
        await store.set_identity(MODEL)
        whole = await export_memories(store)
        chain: list[PortableBundle] = []
        last = microseconds(now())
        for step in steps:
            for put, number in step:
                last = max(last + 1, microseconds(now()))
                if put:
                    moment = from_microseconds(last)
                    await store.upsert([memory(number, updated_at=moment, content=str(last))])
                else:
                    await store.apply(Change(forget={f"memory-{number}": last}))
            since = whole if by_bundle else datetime.fromisoformat(whole.manifest.exported_at)
            chain.append(await export_memories(store, since=since))
            whole = await export_memories(store)
        shuffled = dice.sample(chain, len(chain))
        for order in (chain, shuffled, [*chain, *shuffled]):
            other = InMemoryStore()
            for bundle in order:
                read = PortableBundle.from_dict(json.loads(json.dumps(bundle.to_dict())))
                await import_memories(read, other, conflict_resolution=ConflictResolution.MERGE)
            here = await other.get_many(await other.list_ids())
            assert here == {entry.id: entry for entry in whole.entries}
            assert await other.forgotten() == forgotten(whole)

    asyncio.run(go())


# Through the interfaces


async def test_export_since_a_time_and_since_a_bundle_over_mcp(
    tmp_path: Path,
) -> None:
    write_bundle(tmp_path / "first.json", memories(3))
    write_bundle(tmp_path / "more.json", [*memories(5, 8)[2:], memory(1, content="changed")])
    async with connected(tmp_path) as client:
        await call(client, "tribal_import", input_path="first.json")
        whole = await call(client, "tribal_export")
        name = Path(whole["output_path"]).name
        await call(client, "tribal_import", input_path="more.json", conflict_resolution="overwrite")
        for since in (whole["exported_at"], whole["output_path"], name):
            result = await call(client, "tribal_export", since=since)
            assert (result["memory_count"], result["deleted"]) == (3, 0)
            assert result["filters"].startswith("all memories ")
            assert f'since="{result["exported_at"]}"' in result["next_step"]
        assert name in result["filters"]
        path = result["output_path"]
        empty = await call(client, "tribal_export", since=result["exported_at"])
        assert empty["next_step"].startswith("There are no memories added or changed since")
        refused = await client.call_tool("tribal_export", {"since": "yesterday"})
        assert refused.is_error
        assert "neither an ISO 8601 time" in text_of(refused)
        refused = await client.call_tool("tribal_export", {"since": path})
        assert "holds only changes since an earlier point" in text_of(refused)
        assert result["exported_at"] in text_of(refused)
        refused = await client.call_tool("tribal_export", {"since": "/etc/secret.json"})
        assert "outside the allowed folders" in text_of(refused)
        noted = await call(client, "tribal_import", input_path=path, dry_run=True)
        assert any("incremental bundle" in note for note in noted["notes"])


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIBAL_DATA_DIR", str(tmp_path / "store"))
    monkeypatch.setenv("TRIBAL_BUNDLE_DIRS", str(tmp_path))
    return Context(*load())


async def export(context: Context, **arguments: str) -> ExportResult:
    result = await run(context, "export", arguments)
    assert isinstance(result, ExportResult)
    return result


async def test_an_incremental_bundle_deletes_in_the_target(
    context: Context, tmp_path: Path
) -> None:
    async with open_store(tmp_path / "store") as store:
        await store.upsert(memories(3))
        await export(context, output_path="whole.json")
        await store.delete(["memory-2"])
    result = await export(context, output_path="small.json", since="whole.json")
    assert (result.memory_count, result.deleted) == (0, 1)
    assert result.next_steps[0].action == "import"
    data = json.loads((tmp_path / "small.json").read_bytes())
    assert [one["id"] for one in data["deleted"]] == ["memory-2"]
    assert (data["entries"], data["integrity"]["deleted_count"]) == ([], 1)
    other = replace(
        context, settings=context.settings.model_copy(update={"data_dir": tmp_path / "b"})
    )
    await run(other, "import", {"input_path": "whole.json"})
    arguments = {"input_path": "small.json", "conflict_resolution": "merge"}
    planned = await run(other, "import", {**arguments, "dry_run": True})
    done = await run(other, "import", arguments)
    assert isinstance(planned, ImportResult)
    assert isinstance(done, ImportResult)
    assert (done.deletions, done.deleted) == (planned.deletions, planned.deleted) == (1, 1)
    async with open_store(tmp_path / "b") as store:
        assert await store.existing(["memory-1", "memory-2"]) == {"memory-1"}


async def test_progress_with_an_earlier_bundle_only_increases_and_ends_at_100(
    context: Context, tmp_path: Path
) -> None:
    async with open_store(tmp_path / "store") as store:
        await store.upsert(memories(600))
        await export(context, output_path="whole.json")
        await store.upsert(memories(300))
        await store.upsert([memory(n, content="new") for n in range(300)])
    seen: list[tuple[float, str]] = []
    told = replace(context, progress=lambda percent, words: seen.append((percent, words)))
    result = await export(told, output_path="small.json", since="whole.json")
    assert result.memory_count == 300
    percents = [percent for percent, _ in seen]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert {words.split()[0] for _, words in seen} == {"Verified", "Compared", "Exported"}


async def test_a_damaged_earlier_bundle_is_refused_and_nothing_is_written(
    context: Context, tmp_path: Path
) -> None:
    (tmp_path / "cut.json").write_bytes(written(3)[:-9])
    with pytest.raises(
        BundleError, match=r"The earlier bundle, 'cut.json': .* No file was written"
    ):
        await export(context, output_path="small.json", since="cut.json")
    with pytest.raises(UsageError, match=r"'none.json' does not exist"):
        await export(context, output_path="small.json", since="none.json")
    assert not (tmp_path / "small.json").exists()


async def test_an_earlier_bundle_is_also_found_by_name_in_the_bundle_directory(
    context: Context, tmp_path: Path
) -> None:
    bundles = tmp_path / "bundles"
    elsewhere = context.settings.model_copy(update={"bundle_dirs": str(bundles)})
    person = replace(context, settings=elsewhere, trusted=True)
    async with open_store(tmp_path / "store") as store:
        await store.upsert(memories(3))
    whole = Path((await export(person)).output_path)
    assert whole.parent == bundles
    result = await export(person, output_path="small.json", since=whole.name)
    assert (result.memory_count, (tmp_path / "small.json").exists()) == (0, True)


def test_the_command_line_exports_since_a_bundle_and_since_a_time(
    context: Context, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tribal(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tribal-mcp", *arguments])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
        return capsys.readouterr().out

    async def fill() -> None:
        async with open_store(context.settings.data_dir) as store:
            await store.upsert([memory(0), memory(1, supersedes="memory-0"), memory(2)])
            await export(context, output_path="whole.json")
            await store.upsert([memory(1, content="changed", supersedes="memory-0")])
            await store.delete(["memory-2"])

    asyncio.run(fill())
    out = tribal("export", "small.json", "--since", "whole.json", "--include-related")
    assert out.startswith("Exported 2 memories to small.json\n")
    table = rows(out)
    selection = "all memories new or changed since 'whole.json' and related memories"
    assert table["selection"] == selection
    assert (table["related"], table["tombstones"]) == ("1 memory added for references", "1")
    [again] = re.findall(r"--since (\S+)`\.$", out, re.MULTILINE)
    out = tribal("export", "none.json", "--since", again)
    assert "There are no memories added or changed since" in out
