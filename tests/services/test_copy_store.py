"""Copies between folders, and to and from a real Chroma server."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.chroma_servers import RealServer
from tests.support.command_line import Tribal, rows
from tests.support.examples import memories, memory
from tests.support.mcp_client import write_bundle
from tribal_mcp.config import Settings
from tribal_mcp.errors import Stopped, UsageError
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.portability.memory_json import dump_entry
from tribal_mcp.services.maintenance import copy_store as copying
from tribal_mcp.services.maintenance.copy_store import copy_store
from tribal_mcp.services.results.maintenance import CopyResult
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.stores.factory import server_of, settings_at
from tribal_mcp.stores.in_memory import InMemoryStore

pytestmark = pytest.mark.anyio


async def state_of(store: MemoryStore) -> tuple[dict[str, bytes], dict[str, int]]:
    found = await store.get_many(await store.list_ids())
    return {i: dump_entry(e) for i, e in found.items()}, await store.forgotten()


async def filled() -> InMemoryStore:
    store = InMemoryStore()
    await store.upsert([*memories(7), memory(7, embedding=None)])
    await store.delete(["memory-3"])
    return store


def result() -> CopyResult:
    return CopyResult(source="one", target="two")


async def test_a_copy_transfers_everything_and_repeating_it_writes_nothing() -> None:
    source, target = await filled(), InMemoryStore()
    await copy_store(source, target, first := result())
    assert await state_of(target) == await state_of(source)
    assert (first.copied, first.written, first.forgotten) == (7, 7, 1)
    await copy_store(source, target, again := result())
    assert (again.identical, again.written, again.sha256) == (7, 0, first.sha256)


async def test_repeating_a_copy_that_was_stopped_continues_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copying, "STEP", 2)
    source, target = await filled(), InMemoryStore()
    with pytest.raises(Stopped, match="2 of 7"):
        await copy_store(source, target, result(), stop=lambda: True)
    await copy_store(source, target, rest := result())
    assert (rest.identical, rest.written) == (2, 5)
    assert await state_of(target) == await state_of(source)


async def test_copy_refuses_a_target_with_other_memories_unless_overwriting_is_allowed() -> None:
    source, target = await filled(), InMemoryStore()
    await target.upsert([memory(0, content="other"), memory(3), memory(50)])
    before = await state_of(target)
    with pytest.raises(UsageError, match=r"2 other memories and 1 other version .*'memory-0'"):
        await copy_store(source, target, result())
    assert await state_of(target) == before
    await copy_store(source, target, done := result(), overwrite=True)
    held, deleted = await state_of(target)
    expected, forgotten = await state_of(source)
    assert held == expected | {"memory-50": before[0]["memory-50"]}
    assert deleted == forgotten
    assert (done.copied, done.replaced, done.others) == (6, 1, 1)


async def test_a_dry_run_of_a_copy_counts_and_writes_nothing() -> None:
    source, target = await filled(), InMemoryStore()
    dry = CopyResult(source="one", target="two", dry_run=True)
    await copy_store(source, target, dry)
    assert (dry.copied, dry.written, await target.count()) == (7, 0, 0)


@pytest.mark.parametrize("dry_run", [True, False])
async def test_copy_refuses_to_combine_vectors_of_two_models(dry_run: bool) -> None:
    source, target = await filled(), InMemoryStore()
    await source.set_identity(create_embedding_metadata("one", 8))
    await target.upsert([memory(0)])
    for model, said in ((None, "not recorded"), (create_embedding_metadata("two", 8), "two")):
        await target.set_identity(model)
        before = await state_of(target)
        with pytest.raises(UsageError, match=f"made by one .* target's by .*{said}"):
            await copy_store(
                source, target, CopyResult(source="1", target="2", dry_run=dry_run), overwrite=True
            )
        assert await state_of(target) == before


async def test_a_target_without_vectors_gets_the_model_of_the_source() -> None:
    source, target = await filled(), InMemoryStore()
    await source.set_identity(one := create_embedding_metadata("one", 8))
    await target.set_identity(create_embedding_metadata("two", 16))
    await copy_store(source, target, result())
    assert (await target.state()).identity == one


async def test_vectors_without_a_recorded_model_replace_the_model_of_an_empty_target() -> None:
    source, target = await filled(), InMemoryStore()
    await target.set_identity(create_embedding_metadata("two", 8))
    await copy_store(source, target, result())
    assert (await target.state()).identity is None
    await copy_store(source, target, again := result())
    assert again.written == 0


HOME = Settings(
    chroma_url="https://Home.example:8443/base",
    chroma_token=SecretStr("s3cret"),
    chroma_headers=SecretStr('{"X-Key": "k3y"}'),
    copy_token=SecretStr("oth3r"),
)


@pytest.mark.parametrize(
    ("place", "sent"),
    [
        ("#other", {"Authorization": "Bearer s3cret", "X-Key": "k3y"}),
        ("https://home.example:8443/elsewhere", {"Authorization": "Bearer s3cret", "X-Key": "k3y"}),
        ("https://home.example", {"Authorization": "Bearer oth3r"}),
        ("http://home.example:8443", {"Authorization": "Bearer oth3r"}),
        ("https://home.example.evil:8443", {"Authorization": "Bearer oth3r"}),
    ],
)
def test_credentials_of_one_server_are_not_sent_to_another(
    place: str, sent: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBAL_CHROMA_TOKEN", "s3cret")
    server = server_of(settings_at(HOME, place))
    assert server is not None
    assert server.headers == sent


@pytest.mark.parametrize(
    "place",
    [
        "https://me:s3cret@a.example",
        "ftp://me:s3cret@a.example#x",
        "https://me:s3cret/more@a.example",
        f"https://me:s3cret{'x' * 300}@a.example",
        "https://me:s3cret@[::1",
        "a#",
        "a#x.pending",
    ],
)
def test_an_invalid_location_is_refused_without_showing_its_password(place: str) -> None:
    with pytest.raises(UsageError) as refused:
        settings_at(HOME, place)
    assert "s3cret" not in str(refused.value)
    assert "k3y" not in str(refused.value)


def test_copy_works_from_folder_to_server_to_folder(
    tribal: Tribal, chroma_server: RealServer, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "some.json", [*memories(40), memory(40, embedding=None)])
    assert tribal("import", "some.json").code == 0
    assert tribal("forget", "memory-5").code == 0
    place = f"{chroma_server.url}#copied-here"
    dry = tribal("copy", "--to", place, "--dry-run")
    assert (dry.code, rows(dry.out)["copied"] == "40") == (0, True)
    there = tribal("copy", "--to", place)
    assert there.code == 0, there.err
    assert "Both stores hold the same memories." in there.out
    back = tribal("copy", "--from", place, "--to", f"{tmp_path / 'other'}#memories")
    assert back.code == 0, back.err
    first = tribal("export", "first.json", "--json")
    second = tribal("copy", "--from", f"{tmp_path / 'other'}#memories", "--to", place)
    assert (first.code, second.code) == (0, 0)
    assert rows(second.out)["identical"] == "40"
    same = tribal("copy", "--to", "#memories")
    assert (same.code, "are the same store" in same.err) == (2, True)
