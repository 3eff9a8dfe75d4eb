"""Remember and forget: what is stored, noted and refused."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.embedders import BagOfWords, no_embedder
from tests.support.examples import memory, vector
from tests.support.next_steps import next_steps
from tribal_mcp.config import Settings
from tribal_mcp.errors import UsageError
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.services.embedders import EmbedderOf
from tribal_mcp.services.maintenance.history import history
from tribal_mcp.services.maintenance.undo import undo
from tribal_mcp.services.memories.forget import MOST, forget
from tribal_mcp.services.memories.remember import entry_of, remember
from tribal_mcp.services.requests import RememberRequest
from tribal_mcp.services.results.memories import ForgetResult, RememberResult
from tribal_mcp.stores.chroma.store import open_store
from tribal_mcp.stores.in_memory import InMemoryStore
from tribal_mcp.stores.restore_points import RestorePoints
from tribal_mcp.stores.search import SearchableStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> SearchableStore:
    """Stores hold the same contract, so most rules are tested on the fastest one."""
    return InMemoryStore()


@pytest.fixture
def folder(tmp_path: Path) -> SearchableStore:
    return open_store(tmp_path / "chroma")


@pytest.fixture(params=["store", "folder"])
def each_store(request: pytest.FixtureRequest) -> SearchableStore:
    store: SearchableStore = request.getfixturevalue(request.param)
    return store


async def said(
    store: SearchableStore,
    content: str,
    embedder: EmbedderOf = no_embedder,
    **more: Any,  # noqa: ANN401
) -> RememberResult:
    entry = entry_of(RememberRequest(content=content, **more), "tests", DEFAULT_LIMITS)
    return await remember(store, embedder, entry)


async def test_remember_stores_the_given_values(each_store: SearchableStore) -> None:
    first = await said(each_store, "Likes tea")
    result = await said(
        each_store,
        " Takes tea\nwithout milk\u200b ",
        tags=["home", "tea", "home"],
        context="breakfast",
        confidence=0.5,
        related_to=[first.id],
    )
    assert (result.created, result.has_vector) == (True, False)
    entry = await each_store.get(result.id)
    assert entry is not None
    assert entry.content == " Takes tea\nwithout milk\u200b "
    assert (entry.tags, entry.context, entry.confidence) == (["home", "tea"], "breakfast", 0.5)
    assert (entry.source_type, entry.source_instance) == ("user_explicit", "tests")
    assert (entry.related_to, entry.supersedes) == ([first.id], None)
    assert entry.created_at == entry.updated_at
    assert entry.created_at.utcoffset() == timedelta(0)


async def test_the_first_memory_with_a_vector_records_the_model(
    each_store: SearchableStore,
) -> None:
    embedder = BagOfWords()
    result = await said(each_store, "Likes tea", embedder)
    assert (result.has_vector, result.notes) == (True, [])
    assert (await each_store.state()).identity == embedder.identity
    entry = await each_store.get(result.id)
    assert entry is not None
    assert entry.embedding is not None
    assert entry.embedding.tobytes() == embedder.vector("Likes tea").tobytes()


@pytest.mark.parametrize(
    ("embedder", "why"),
    [
        (no_embedder, "For semantic search, set TRIBAL_EMBEDDING_PROVIDER"),
        (BagOfWords("another"), r"made by bag-of-words.*another \(64.*reembed\(all=True"),
        (BagOfWords(fails="The key is missing. Set OPENAI_API_KEY."), "Set OPENAI_API_KEY"),
    ],
    ids=["none", "another model", "it fails"],
)
async def test_without_the_embedder_of_the_store_a_memory_is_stored_without_a_vector_and_says_why(
    store: SearchableStore, embedder: EmbedderOf, why: str
) -> None:
    await said(store, "Likes tea", BagOfWords())
    result = await said(store, "Likes coffee", embedder)
    assert (result.created, result.has_vector) == (True, False)
    [note] = result.notes
    assert note.startswith("Stored without an embedding: keyword search finds it")
    assert re.search(why, f"{note} {next_steps(result)}")
    assert (await store.state()).pending == 1


async def test_a_store_with_an_unrecorded_model_gets_no_new_vectors(store: SearchableStore) -> None:
    await store.upsert([memory(0, 64)])
    result = await said(store, "Likes tea", BagOfWords())
    assert not result.has_vector
    assert "a model that is not recorded" in result.notes[0]
    assert (await store.state()).identity is None


async def test_the_same_text_is_not_stored_twice(each_store: SearchableStore) -> None:
    first = await said(each_store, "Likes tea", tags=["home"])
    again = await said(each_store, "Likes tea", tags=["other"])
    assert (again.id, again.created) == (first.id, False)
    assert "already stored, tagged 'home'. Nothing was changed" in again.notes[0]
    assert f"supersedes={first.id!r}" in next_steps(again)
    assert await each_store.count() == 1


async def test_a_corrected_text_can_be_stored_again(store: SearchableStore) -> None:
    tea = await said(store, "Likes tea")
    coffee = await said(store, "Likes coffee", supersedes=tea.id)
    assert coffee.created
    tea_after_all = await said(store, "Likes tea")
    assert tea_after_all.created
    tea_again = await said(store, "Likes tea", supersedes=coffee.id)
    assert tea_again.created
    twice = await said(store, "Likes tea", supersedes=coffee.id)
    assert (twice.created, twice.id) == (False, tea_again.id)
    entry = await store.get(tea_again.id)
    assert entry is not None
    assert (entry.supersedes, entry.source_type) == (coffee.id, "correction")


async def test_the_same_text_with_other_tags_is_stored_if_it_supersedes_the_first(
    store: SearchableStore,
) -> None:
    first = await said(store, "Likes tea", tags=["home"])
    second = await said(store, "Likes tea", tags=["work"], supersedes=first.id)
    assert second.created
    assert await store.count() == 2


async def test_only_an_existing_memory_can_be_superseded(store: SearchableStore) -> None:
    first = await said(store, "Likes tea")
    with pytest.raises(UsageError, match=r"There is no memory 'nobody' to supersede\.") as error:
        await said(store, "Likes coffee", supersedes="nobody")
    assert "recall(" in next_steps(error.value)
    await forget(store, [first.id])
    with pytest.raises(UsageError, match="was deleted"):
        await said(store, "Likes coffee", supersedes=first.id)
    assert await store.count() == 0


async def test_a_second_correction_and_dangling_links_are_noted(store: SearchableStore) -> None:
    first = await said(store, "Likes tea")
    second = await said(store, "Likes coffee", supersedes=first.id)
    third = await said(store, "Likes water", supersedes=first.id, related_to=["a", "b"])
    corrected, missing = third.notes[1:]
    assert f"already has a correction, {second.id!r}" in corrected
    assert missing == "Some related memories do not exist: 'a', 'b'."


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"content": ""}, "The content is empty"),
        ({"content": " \n"}, "The content is empty"),
        ({"content": "x" * 101}, "content is 101 bytes.*TRIBAL_LIMIT_CONTENT_BYTES"),
        ({"content": "x", "tags": ["a", ""]}, "A tag is empty"),
        ({"content": "x", "tags": ["a", "b", "c"]}, "TRIBAL_LIMIT_TAGS"),
        ({"content": "x", "confidence": 1.5}, "confidence is 1.5, not a number from 0 to 1"),
        ({"content": "half a character: \ud83d"}, "can't be stored"),
    ],
)
def test_invalid_memories_are_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        entry_of(RememberRequest(**given), "tests", Limits(content_bytes=100, tags=2))


async def test_texts_are_embedded_outside_of_the_session_of_the_store(
    store: SearchableStore,
) -> None:
    """A slow network does not lock the store."""
    inside = False

    class Watching(BagOfWords):
        async def embed(self, texts: Sequence[str], *, query: bool = False) -> Any:  # noqa: ANN401
            assert not inside
            return await super().embed(texts, query=query)

    session = store.session

    @asynccontextmanager
    async def watched(*, writing: bool = False) -> AsyncIterator[None]:
        nonlocal inside
        async with session(writing=writing):
            inside = True
            yield
            inside = False

    store.session = watched  # type: ignore[method-assign]
    assert (await said(store, "Likes tea", Watching())).has_vector


async def some(store: SearchableStore) -> None:
    """Store a, corrected by b, corrected by c; and d."""
    await store.upsert(
        [
            memory(0, id="a"),
            memory(1, id="b", supersedes="a"),
            memory(2, id="c", supersedes="b", embedding=None),
            memory(3, id="d"),
        ]
    )


@pytest.mark.parametrize("dry_run", [True, False])
async def test_forget_reports_deleted_missing_and_current_memories(
    each_store: SearchableStore, dry_run: bool
) -> None:
    await some(each_store)
    result = await forget(each_store, ["c", "none", "d", "c"], dry_run=dry_run)
    assert result == ForgetResult(
        forgotten=["c", "d"],
        not_here=["none"],
        current_again=["b"],
        dry_run=dry_run,
        next_steps=result.next_steps,
    )
    assert (
        "the correction of 'b', so 'b' is current again. To delete 'b' as well, run"
        in next_steps(result)
    )
    assert ("To delete, run forget(ids=['c', 'd'])" in next_steps(result)) == dry_run
    assert set(await each_store.list_ids()) == ({"a", "b", "c", "d"} if dry_run else {"a", "b"})
    assert set(await each_store.forgotten()) == (set() if dry_run else {"c", "d"})


async def test_forget_reports_the_corrections_that_stay(store: SearchableStore) -> None:
    await some(store)
    result = await forget(store, ["a", "b"])
    assert (result.corrected_by, result.current_again) == (["c"], [])


async def test_a_memory_with_another_correction_is_not_current_again(
    store: SearchableStore,
) -> None:
    await some(store)
    await store.upsert([memory(4, id="e", supersedes="b")])
    assert (await forget(store, ["c"])).current_again == []
    assert (await forget(store, ["e"])).current_again == ["b"]


async def test_undo_restores_deleted_memories(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    await some(store)
    before = await store.get_many(["c", "d"])
    result = await forget(store, ["c", "d"], RestorePoints.of(store))
    assert f"undo(point={result.restore_point!r})" in next_steps(result)
    undone = await undo(store, result.restore_point)
    assert undone.brought_back == 2
    assert await store.get_many(["c", "d"]) == before
    assert await store.forgotten() == {}


async def test_deleting_a_memory_twice_is_noted(store: SearchableStore) -> None:
    await some(store)
    await forget(store, ["d"])
    result = await forget(store, ["d"])
    assert (result.forgotten, result.not_here) == ([], ["d"])
    assert result.notes == ["Already deleted before: 'd'."]
    assert "recall(" in next_steps(result)


async def test_forget_refuses_no_ids_and_too_many(store: SearchableStore) -> None:
    with pytest.raises(UsageError, match="No ids are given"):
        await forget(store, [])
    with pytest.raises(UsageError, match="101 ids are too many at once"):
        await forget(store, [str(n) for n in range(MOST + 1)])


async def test_a_deleted_text_can_be_stored_again(store: SearchableStore) -> None:
    first = await said(store, "Likes tea")
    await forget(store, [first.id])
    again = await said(store, "Likes tea")
    assert again.created
    assert again.id != first.id


def test_the_name_of_the_instance_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().instance == "tribal-mcp"
    monkeypatch.setenv("TRIBAL_INSTANCE", "desk")
    assert Settings().instance == "desk"


async def test_a_recorded_model_without_vectors_is_not_replaced(
    store: SearchableStore,
) -> None:
    await store.set_identity(create_embedding_metadata("theirs", 8, "x"))
    result = await said(store, "Likes tea", BagOfWords())
    assert not result.has_vector
    await store.upsert([memory(0, embedding=vector(0))])


async def test_what_a_session_remembers_is_one_operation_in_the_order_of_the_others(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path)
    points = RestorePoints.of(store)
    assert points is not None
    embedder = BagOfWords()

    async def say(text: str) -> str:
        entry = entry_of(RememberRequest(content=text), "me", DEFAULT_LIMITS)
        return (await remember(store, embedder, entry, points)).id

    first, second = await say("One"), await say("Two")
    await forget(store, [first], points)
    third = await say("Three")
    listed = history(points).operations
    assert [(o.operation, o.counts) for o in listed] == [
        ("remember", {"remembered": 1}), ("forget", {"forgotten": 1}),
        ("remember", {"remembered": 2}),
    ]  # fmt: skip
    assert all(o.bytes > 0 and o.local_time for o in listed)
    assert (await undo(store)).removed == 1
    assert await store.existing([first, second, third]) == {second}
    assert (await undo(store)).brought_back == 1
    assert await store.existing([first, second, third]) == {first, second}
    assert (await undo(store)).removed == 2
    assert (await store.count(), await store.identity()) == (0, None)
    fourth = await say("Four")
    assert history(points).operations[0].counts == {"remembered": 1}
    assert await store.existing([fourth])
    for _ in range(3):
        await forget(store, [await say("Five")], points)
    keep_one = RestorePoints(points.folder, 1, points.collection)
    keep_one.empty_old()
    assert all(o.can_undo for o in history(points).operations if o.operation == "remember")
