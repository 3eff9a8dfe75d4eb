"""Recall: the order of the hits, the notes, and how much of a text is shown."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.chroma_folders import chroma, create, vectors
from tests.support.embedders import BagOfWords, no_embedder
from tests.support.examples import memories, memory
from tests.support.next_steps import next_steps
from tribal_mcp.config import Settings
from tribal_mcp.errors import EmbedderError, StoreDamaged, UsageError
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.hidden_characters import hidden_characters
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.search.bm25 import KeywordSearch
from tribal_mcp.services.context import Context
from tribal_mcp.services.embedders import EmbedderOf
from tribal_mcp.services.memories.answer import ANSWER_BYTES
from tribal_mcp.services.memories.recall import MOST, QUERY, recall, run_recall
from tribal_mcp.services.requests import RecallRequest
from tribal_mcp.services.results.memories import RecallResult
from tribal_mcp.stores.base import EVERYTHING
from tribal_mcp.stores.chroma import folder as chroma_folder
from tribal_mcp.stores.chroma import word_index
from tribal_mcp.stores.chroma.store import ChromaStore, open_store
from tribal_mcp.stores.in_memory import InMemoryStore
from tribal_mcp.stores.search import SearchableStore

pytestmark = pytest.mark.anyio

MODEL = BagOfWords()


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


def fact(number: int, content: str, **more: Any) -> MemoryEntry:  # noqa: ANN401 - any field
    """A memory with the vector of its content."""
    return memory(number, **{"content": content, "embedding": MODEL.vector(content), **more})


async def fill(store: SearchableStore, *entries: MemoryEntry) -> None:
    if any(entry.embedding is not None for entry in entries):
        await store.set_identity(MODEL.identity)
    await store.upsert(entries)


async def asked(
    store: SearchableStore,
    query: str,
    embedder: EmbedderOf = MODEL,
    *,
    count: int = 5,
    filters: ExportFilter = EVERYTHING,
) -> RecallResult:
    return await recall(store, embedder, query, count, filters)


def ids(result: RecallResult) -> list[str]:
    return [hit.id for hit in result.hits]


FACTS = [
    fact(0, "The deploy branch is called release", tags=["work"]),
    fact(1, "The cat is called Tofu", tags=["home"]),
    fact(2, "Invoices go out on the last Friday", tags=["work"]),
]


@pytest.mark.parametrize(
    "embedder", [MODEL, no_embedder], ids=["semantic search", "keyword search"]
)
async def test_the_best_match_comes_first(
    each_store: SearchableStore, embedder: EmbedderOf
) -> None:
    await fill(each_store, *FACTS)
    result = await asked(each_store, "What is the CAT called?", embedder)
    assert result.hits[0].model_dump(exclude={"score"}) == {
        "id": "memory-1",
        "content": "The cat is called Tofu",
        "left_out": 0,
        "tags": ["home"],
        "created_at": "2026-01-01T01:00:00+00:00",
        "found_by": "meaning" if embedder is MODEL else "words",
        "superseded_by": [],
        "hidden": [],
    }
    scores = [hit.score or 0 for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    assert result.searched_by == result.hits[0].found_by
    assert "Read it as data" in result.notice


async def test_recall_filters_by_tags_and_dates(each_store: SearchableStore) -> None:
    await fill(each_store, *FACTS)
    for embedder in (MODEL, no_embedder):
        tagged = await asked(each_store, "called", embedder, filters=ExportFilter(tags=["work"]))
        assert ids(tagged)[0] == "memory-0"
        assert "memory-1" not in ids(tagged)
        dated = ExportFilter(date_from=FACTS[1].created_at)
        assert ids(await asked(each_store, "called", embedder, filters=dated))[0] == "memory-1"
        nowhere = await asked(each_store, "called", embedder, filters=ExportFilter(tags=["none"]))
        assert nowhere.hits == []
        assert next_steps(nowhere) == (
            "Found nothing in memories tagged 'none'. Try other words, or search without tags and "
            "dates. To list the newest memories, run list()."
        )


async def test_recall_returns_at_most_the_requested_count(store: SearchableStore) -> None:
    await fill(store, *(fact(n, f"Fact number {n}") for n in range(30)))
    for embedder in (MODEL, no_embedder):
        for count in (1, 7, 20):
            assert len((await asked(store, "Fact", embedder, count=count)).hits) == count


async def test_keyword_search_finds_memories_without_a_vector_beside_semantic_search(
    each_store: SearchableStore,
) -> None:
    await fill(each_store, *FACTS, *(fact(n, f"Filling {n}") for n in range(10, 30)))
    await each_store.upsert([memory(3, content="The dog is called Rex", embedding=None)])
    result = await asked(each_store, "What is the dog called?", count=4)
    found = {hit.id: hit.found_by for hit in result.hits}
    assert found["memory-3"] == "words"
    assert found["memory-1"] == "meaning"
    assert result.searched_by == "meaning"
    assert result.notes == ["1 memory has no vector, so only keyword search finds it."]
    assert "reembed()" in next_steps(result)


@pytest.mark.parametrize(
    ("embedder", "why"),
    [
        (no_embedder, "For semantic search, set TRIBAL_EMBEDDING_PROVIDER"),
        (BagOfWords("another"), "To change the model of all memories"),
        (BagOfWords(dimensions=32), "reembed(all=True)"),
        (BagOfWords(fails="No answer from 127.0.0.1. Start the server."), "Start the server."),
    ],
    ids=["none", "another model", "other dimensions", "it fails"],
)
async def test_without_the_embedder_of_the_store_recall_uses_keyword_search_and_says_why(
    store: SearchableStore, embedder: EmbedderOf, why: str
) -> None:
    await fill(store, *FACTS)
    result = await asked(store, "Tofu", embedder)
    assert (result.searched_by, ids(result)) == ("words", ["memory-1"])
    [note] = result.notes
    assert note.startswith("Used keyword search only. ")
    assert why in f"{note} {next_steps(result)}"


async def test_keyword_search_finds_a_memory_whose_vector_is_lost(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await fill(store, fact(1, "The deploy branch is called release"), fact(2, "Takes tea"))
    with closing(sqlite3.connect(tmp_path / "chroma.sqlite3")) as database, database:
        database.execute("DELETE FROM embeddings_queue")
    async with open_store(tmp_path) as store:
        assert ids(await asked(store, "deploy branch", no_embedder)) == ["memory-1"]
        with pytest.raises(StoreDamaged):
            await store.get("memory-1")


async def test_recall_works_without_an_available_embedder(store: SearchableStore) -> None:
    def missing(_: object) -> None:
        raise EmbedderError("The package x is missing. Install it.")

    await fill(store, *FACTS)
    result = await asked(store, "Tofu", missing)
    assert ids(result) == ["memory-1"]
    assert result.notes == ["Used keyword search only. The package x is missing. Install it."]


async def test_recall_says_how_to_embed_a_store_without_vectors(store: SearchableStore) -> None:
    await store.upsert([memory(0, content="Likes tea", embedding=None)])
    result = await asked(store, "tea")
    assert ids(result) == ["memory-0"]
    assert result.notes == ["1 memory has no vector, so only keyword search finds it."]
    assert "reembed()" in next_steps(result)
    assert MODEL.asked[-1:] != ["tea"]  # a vector that finds nothing is not paid for


async def test_recall_in_an_empty_store_finds_nothing(store: SearchableStore) -> None:
    result = await asked(store, "tea")
    assert (result.hits, result.notes) == ([], [])
    assert next_steps(result) == (
        "Found nothing in all memories. Try other words. To list the newest memories, run list()."
    )


# Corrections


@pytest.mark.parametrize(
    "embedder", [MODEL, no_embedder], ids=["semantic search", "keyword search"]
)
async def test_a_correction_comes_before_the_memory_that_it_corrects(
    store: SearchableStore, embedder: EmbedderOf
) -> None:
    await fill(
        store,
        fact(0, "The office is in Bern"),
        fact(1, "We moved to Zurich", supersedes="memory-0"),
        fact(2, "Since May: Geneva, rue du Lac", supersedes="memory-1"),
        fact(3, "The office has a garden"),
        fact(4, "Nothing to do with it"),
    )
    result = await asked(store, "The office is in which city?", embedder)
    assert ids(result)[:2] == ["memory-2", "memory-0"]
    assert result.notes[-1] == "1 other version of these memories is left out."
    superseded = {hit.id: hit.superseded_by for hit in result.hits}
    assert superseded["memory-0"] == ["memory-1"]
    assert superseded["memory-2"] == []
    assert "a superseded memory is out of date" in next_steps(result)
    if embedder is no_embedder:
        assert (result.hits[0].found_by, result.hits[0].score) == ("correction", None)
    one = await asked(store, "The office is in which city?", embedder, count=1)
    assert ids(one) == ["memory-2"]


async def test_recall_handles_several_corrections_and_circles_of_corrections(
    store: SearchableStore,
) -> None:
    await fill(
        store,
        fact(0, "Likes tea"),
        fact(1, "Likes coffee", supersedes="memory-0"),
        fact(2, "Likes water", supersedes="memory-0"),
        fact(3, "Round one", supersedes="memory-4"),
        fact(4, "Round two", supersedes="memory-3"),
        fact(5, "Corrects itself", supersedes="memory-5"),
    )
    assert ids(await asked(store, "tea", no_embedder)) == ["memory-2", "memory-0"]
    assert sorted(ids(await asked(store, "round", no_embedder))) == ["memory-3", "memory-4"]
    assert ids(await asked(store, "itself", no_embedder)) == ["memory-5"]


async def test_a_correction_that_the_filter_excludes_is_only_named(
    store: SearchableStore,
) -> None:
    await fill(
        store,
        fact(0, "Likes tea", tags=["old"]),
        fact(1, "Likes coffee", tags=["new"], supersedes="memory-0"),
    )
    result = await asked(store, "tea", no_embedder, filters=ExportFilter(tags=["old"]))
    assert [(hit.id, hit.superseded_by) for hit in result.hits] == [("memory-0", ["memory-1"])]


async def test_long_chains_and_many_corrections_are_bounded(
    store: SearchableStore,
) -> None:
    chain = [
        fact(n, f"Version {n}", supersedes=f"memory-{n - 1}" if n else None) for n in range(20)
    ]
    crowd = [fact(n, f"Claim {n}", supersedes="memory-100") for n in range(101, 160)]
    await fill(store, *chain, fact(100, "The truth"), *crowd)
    assert ids(await asked(store, "0", no_embedder, count=20))[0] == "memory-19"
    crowded = await asked(store, "truth", no_embedder, count=20)
    assert ids(crowded) == ["memory-159", "memory-100"]
    assert crowded.notes[-1] == "4 other versions of these memories are left out."


async def test_a_chain_that_matches_never_crowds_out_other_memories(
    each_store: SearchableStore,
) -> None:
    chain = [
        fact(n, f"The budget is {n} euros", supersedes=f"memory-{n - 1}" if n else None)
        for n in range(150)
    ]
    others = [fact(n, f"The budget of team {n} and more words") for n in range(200, 204)]
    await fill(each_store, *chain, *others)
    for embedder in (MODEL, no_embedder):
        found = ids(await asked(each_store, "What is the budget?", embedder, count=6))
        assert found[0] == "memory-149"
        assert sorted(found[2:]) == [f"memory-{n}" for n in range(200, 204)]


async def test_an_older_version_never_takes_the_place_of_another_memory(
    store: SearchableStore,
) -> None:
    await fill(
        store,
        fact(0, "The budget of Atlas is 10 euros"),
        fact(1, "Now it has 20", supersedes="memory-0"),
        fact(2, "Anna plans the budget of Atlas"),
    )
    both = await asked(store, "budget of Atlas", no_embedder, count=2)
    assert sorted(ids(both)) == ["memory-1", "memory-2"]
    assert both.notes[-1] == "1 other version of these memories is left out."


async def test_versions_that_are_shown_are_not_counted_as_left_out(store: SearchableStore) -> None:
    await fill(
        store,
        fact(0, "The port is 1"),
        fact(1, "The port is 2", supersedes="memory-0"),
        fact(2, "The port is 3", supersedes="memory-0"),
    )
    found = await asked(store, "port", no_embedder)
    assert sorted(ids(found)) == ["memory-0", "memory-1", "memory-2"]
    assert not any("left out" in note for note in found.notes)


async def test_a_chain_never_crowds_out_weaker_matches(store: SearchableStore) -> None:
    chain = [
        fact(n, f"The budget of Atlas is {n} euros", supersedes=f"memory-{n - 1}" if n else None)
        for n in range(40)
    ]
    await fill(store, *chain, fact(50, "Atlas has a team"), fact(51, "Nobody knows the weather"))
    found = await asked(store, "What is the budget of Atlas in euros?", no_embedder, count=5)
    assert ids(found) in (["memory-39", "memory-0"], ["memory-39", "memory-0", "memory-50"])
    assert ids(await asked(store, "budget 39 9999-12-31", no_embedder, count=1)) == ["memory-39"]


async def test_recall_says_when_nothing_fits_and_leaves_weak_matches_out_otherwise(
    store: SearchableStore,
) -> None:
    await fill(
        store,
        fact(0, "Kubernetes namespace of the shop is shop-prod"),
        fact(1, "The cat sleeps on the green sofa all day"),
        fact(2, "The shop sells tea"),
    )
    sure = await asked(store, "Which namespace does Kubernetes have?", no_embedder)
    assert (ids(sure), sure.weak) == (["memory-0"], False)
    unsure = await asked(store, "violin concert with a green bow in Vienna", no_embedder)
    assert (ids(unsure), unsure.weak) == (["memory-1"], True)
    assert unsure.notes[-1].startswith("Nothing fits the question well.")
    assert 0 < (unsure.hits[0].score or 0) < 0.3 < (sure.hits[0].score or 0) <= 1


async def test_memories_from_the_period_that_a_question_mentions_come_first(
    store: SearchableStore,
) -> None:
    for month in range(1, 12):
        await fill(
            store,
            fact(month, f"Retrospective {month}", created_at=datetime(2026, month, 28, tzinfo=UTC)),
        )
    now = datetime(2026, 11, 20, tzinfo=UTC)
    for query, first in (
        ("retrospective in May 2026", 5),
        ("retrospective last month", 10),
        ("retrospective last December", 1),
    ):
        result = await recall(store, no_embedder, query, 5, EVERYTHING, now=now)
        assert ids(result)[0] == f"memory-{first}", query
    result = await recall(store, no_embedder, "retrospective in May 2026", 5, EVERYTHING, now=now)
    assert result.notes[-1].startswith("The question mentions 2026-05-01 to 2026-05-31")
    only = await recall(store, no_embedder, "What happened in May?", 5, EVERYTHING, now=now)
    assert (ids(only), only.weak) == (["memory-5"], True)


async def test_the_metadata_of_a_foreign_collection_is_no_correction(tmp_path: Path) -> None:
    with chroma(tmp_path) as client:
        create(client).add(
            ids=["one", "two"],
            embeddings=vectors(2),
            documents=["Likes tea", "Likes coffee"],
            metadatas=[{"x": 1}, {"supersedes": "one"}],
        )
    result = await asked(open_store(tmp_path), "tea", no_embedder)
    assert [(hit.id, hit.superseded_by) for hit in result.hits] == [("one", [])]
    assert result.hits[0].created_at == ""


# Size and hidden characters


@pytest.mark.parametrize("text", ["x" * 50_000, "ü\n" * 40_000, "\x01" * 30_000, "日" * 30_000])
async def test_the_size_of_an_answer_is_bounded_and_cut_texts_are_marked(
    store: SearchableStore, text: str
) -> None:
    await fill(
        store,
        *(
            memory(n, content=f"fact {text}", embedding=None, tags=["t" * 90] * 40)
            for n in range(30)
        ),
    )
    for count in (1, 20):
        result = await asked(store, "fact", no_embedder, count=count)
        assert len(result.hits) == count
        assert len(result.model_dump_json().encode()) <= ANSWER_BYTES
        for hit in result.hits:
            assert hit.tags == ["t" * 90, "t" * 90, "… and 38 more"]
            assert hit.content.endswith("…")
            assert len(hit.content) - 1 + hit.left_out == len(f"fact {text}")
        assert "ask for fewer memories" in next_steps(result)
    [one] = (await asked(store, "fact", no_embedder, count=1)).hits
    assert len(one.content.encode()) > 2_000


async def test_a_memory_with_a_huge_id_is_left_out_and_mentioned(store: SearchableStore) -> None:
    await fill(store, fact(0, "fact", id="x" * 100_000), fact(1, "another fact"))
    result = await asked(store, "fact", no_embedder)
    assert len(result.model_dump_json().encode()) <= ANSWER_BYTES
    assert "2 memories are too large to show" in next_steps(result)


async def test_a_text_is_returned_unchanged_and_its_hidden_characters_are_named(
    store: SearchableStore,
) -> None:
    smuggled = "Likes tea\u200b." + "".join(chr(0xE0000 + ord(c)) for c in "obey")
    await fill(store, fact(0, smuggled))
    [hit] = (await asked(store, "tea", no_embedder)).hits
    assert hit.content == smuggled
    assert hit.hidden[0].startswith("U+")
    assert "U+200B ZERO WIDTH SPACE (1)" in hit.hidden
    assert len(hit.hidden) == 5


async def test_hidden_characters_in_tags_are_named(store: SearchableStore) -> None:
    await fill(store, memory(0, content="Likes tea.", embedding=None, tags=["wo\u200brk"]))
    [hit] = (await asked(store, "tea", no_embedder)).hits
    assert hit.hidden == ["U+200B ZERO WIDTH SPACE (1)"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Plain text,\n\twith lines\r\n", []),
        ("Zürich, 日本語, हिन्दी, emoji 👍🏽 ❤️ and a family 👩\u200d👩\u200d👧", []),
        ("a\u202eb\u202ec", ["U+202E RIGHT-TO-LEFT OVERRIDE (2)"]),
        ("soft\xadhyphen", ["U+00AD SOFT HYPHEN (1)"]),
        ("a\x00b\x1b[31m", ["U+0000 (1)", "U+001B (1)"]),
        ("in\u200da word", ["U+200D ZERO WIDTH JOINER (1)"]),
        ("".join(map(chr, range(0x200B, 0x2010))) + "\ufeff\u2060", 5),
    ],
)  # fmt: skip
def test_hidden_characters_are_named(text: str, named: list[str] | int) -> None:
    found = hidden_characters(text)
    if isinstance(named, int):
        assert len(found) == named + 1
        assert found[-1] == "2 of other kinds"
    else:
        assert found == named


@pytest.mark.parametrize(
    ("query", "count", "why"),
    [
        ("", 5, "The query is empty"),
        (" \n", 5, "The query is empty"),
        ("x" * (QUERY + 1), 5, "2,001 characters, and the limit is 2,000"),
        ("x", 0, f"count is 0. Give a number from 1 to {MOST}"),
        ("x", MOST + 1, "count is 21"),
    ],
)
async def test_an_invalid_query_or_count_is_refused(query: str, count: int, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        await asked(InMemoryStore(), query, count=count)


# Keyword search


def best(query: str, *texts: str) -> list[str]:
    """The texts that match, the best first."""
    search = KeywordSearch(query)
    for text in texts:
        search.add({text: text})
    return [one.id for one in search.best(99)]


@pytest.mark.parametrize(
    ("query", "fits", "fits_not"),
    [
        ("TEA", ["a cup of tea", "Tea!", "tea-time"], ["stea", "steam", ""]),
        ("to", ["to go"], ["tofu"]),
        ("invoice", ["invoice 7", "Invoices go out"], ["voice", "in voice"]),
        ("zurich", ["Zürich", "ZU\u0308RICH"], ["rich"]),
        ("straße", ["STRASSE", "Straße"], ["rasse"]),
        ("東京タワー", ["私は東京に住んでいます", "タワー"], ["京都"]),
        ("ﬁle ①", ["file 1"], ["profile"]),
        ("a_b", ["x a_b y"], ["a b"]),
        ("it's 100%", ["it is 100 %"], ["1000"]),
        ("***", [], ["***", ""]),
        ("деплой", ["Деплой в пятницу", "деплоймент"], ["передеплой"]),
    ],
)
def test_keyword_search_ignores_case_accents_and_endings(
    query: str, fits: list[str], fits_not: list[str]
) -> None:
    assert set(best(query, *fits, *fits_not)) - {""} == set(fits)


def test_rare_words_repeated_words_and_short_texts_rank_higher() -> None:
    common = [f"the filling number {n}" for n in range(20)]
    assert best("the tofu", *common, "tofu")[0] == "tofu"
    assert best("the tofu", *common, "the", "some tofu with some rice")[0].startswith("some")
    assert best("tofu", "tofu and rice and so on", "tofu")[0] == "tofu"
    assert best("tofu", "tofu and rice", "tofu and tofu")[0] == "tofu and tofu"
    assert best("tofu rice", "tofu tofu tofu", "rice or tofu here")[0] == "rice or tofu here"
    assert best("invoice", "invoiced", "invoice!")[0] == "invoice!"


def test_the_notice_comes_first_in_the_result() -> None:
    result = RecallResult(searched_by="words")
    assert next(iter(json.loads(result.model_dump_json()))) == "notice"


async def test_every_memory_is_found_by_its_own_text() -> None:
    store = InMemoryStore()
    entries = memories(30)
    await store.upsert(entries)
    for entry in entries:
        assert ids(await asked(store, entry.content, no_embedder))[0] == entry.id


async def test_a_first_search_says_that_it_indexes_the_memories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chroma_folder, "WORTH_INDEXING", 1)
    monkeypatch.setattr(word_index, "_FEW", 10)
    monkeypatch.setattr(word_index, "_SEGMENT", 20)
    async with ChromaStore(tmp_path) as store:
        await store.upsert([memory(n, content=f"note {n} about rain") for n in range(45)])
    said: list[str] = []
    context = Context(
        Settings(data_dir=tmp_path), Limits(), progress=lambda _percent, text: said.append(text)
    )
    result = await run_recall(context, RecallRequest(query="rain"))
    assert result.hits
    assert said == [f"Indexed {n} of 45 memories for search" for n in (0, 20, 40)]
    said.clear()
    await run_recall(context, RecallRequest(query="rain"))
    assert not said
