"""The word index finds the same memories with the same scores as reading every text does."""

import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.chroma_folders import chroma
from tests.support.examples import BEGIN, memory, vector
from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.search.bm25 import KeywordSearch
from tribal_mcp.search.segments import Text
from tribal_mcp.stores.chroma import folder, word_index
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.files.tables import Row
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.chroma.word_index import WordIndex
from tribal_mcp.stores.search import SearchableStore

pytestmark = pytest.mark.anyio

TEXT = """
the a to deploy deploys deployed deployment service user_config parse_user_config userConfig x
ERR_CONN_4031 4031 v2 42 running ran happy happiness configuration reads Zürich Zuerich café y1
Überweisung Rechnungsnummer Datenbankverbindung die und läuft nicht база данных базы работает 100
東京 東京都 京都の会議 数据库 數據庫 的 哈哈哈哈 프로젝트는 프로젝트 회의에서 meeting mEETING don't
postgres postgers kubernetes kuberntes _private __init__ e-mail 1000 ﬁle
"""
WORDS = TEXT.split()
QUESTIONS = (
    """
deploy service|was the service deployed?|user config|parse_user_config|4031|conn|happiness|x|100
Rechnung Nummer|die Datenbank läuft nicht|Verbindung|базы данных|東京の会議|数据库|哈哈|都
프로젝트|회의|postgrez|kubernets|Zuerich|cafe meeting|the|_private
no such words|happy meeting in Zürich
""".strip()
    .replace("\n", "|")
    .split("|")
)
FILTERS = [
    ExportFilter(),
    ExportFilter(tags=["odd"]),
    ExportFilter(tags=["odd", "line\nbreak"], date_from=BEGIN.replace(day=2)),
    ExportFilter(tags=["none"]),
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an index made for few memories, with several small segments."""
    monkeypatch.setattr(folder, "WORTH_INDEXING", 1)
    monkeypatch.setattr(word_index, "_SEGMENT", 120)
    monkeypatch.setattr(word_index, "_SAVED", 15)


def some(numbers: Sequence[int], seed: int = 0) -> list[MemoryEntry]:
    """Memories of random words; some have no vector."""
    chance = random.Random(seed)  # noqa: S311
    return [
        memory(
            n,
            id=f"m{n}",
            content=" ".join(chance.choices(WORDS, k=chance.randrange(1, 30))) + f" {n}",
            tags=[*["odd"] * (n % 2), *["line\nbreak"] * (n % 5 == 0), "tag"],
            embedding=None if n % 6 == 0 else vector(n),
        )
        for n in numbers
    ]


async def check(store: ChromaStore, questions: Sequence[str]) -> None:
    """Compare with reading every text, and every memory."""
    for which in FILTERS:
        searches = {question: KeywordSearch(question) for question in questions}
        async for texts in store.read_texts(await store.list_ids(which)):
            for search in searches.values():
                search.add(texts)
        for question, search in searches.items():
            assert await store.rank_words(question, "", which) == search.best(1000), question
        assert await store.sample(20, which) == await SearchableStore.sample(store, 20, which)
    here = [e for batch in [b async for b in store.read(await store.list_ids())] for e in batch]
    tally, expected_tally = await store.tally(), await SearchableStore.tally(store)
    assert len(here) == sum(tally.sources.values())
    assert (tally.tags, tally.sources, tally.months) == (
        expected_tally.tags, expected_tally.sources, expected_tally.months,
    )  # fmt: skip


@pytest.mark.parametrize("keep_open", [True, False], ids=["kept open", "opened each time"])
async def test_it_finds_what_reading_all_texts_finds_while_the_store_changes(
    tmp_path: Path, *, keep_open: bool
) -> None:
    async def with_store(write: Sequence[MemoryEntry], delete: Sequence[str] = ()) -> None:
        async with ChromaStore(tmp_path / "chroma", keep_open=keep_open) as store:
            await store.upsert(write)
            await store.delete(delete)
            await check(store, questions)

    questions: Sequence[str] = QUESTIONS if keep_open else QUESTIONS[::3]
    await with_store(some(range(300)))
    questions = QUESTIONS[::5]
    assert len(list((tmp_path / "chroma/tribal-mcp/words").rglob("*.words"))) > 2
    await with_store(some([300]))
    await with_store([], ["m300"])
    await with_store(some(range(30, 60), seed=1), ["m3", "m12", "m299"])
    await with_store(some(range(500, 560), seed=2))
    await with_store([], [f"m{n}" for n in range(560)])
    await ChromaStore(tmp_path / "chroma").close()


@pytest.mark.parametrize("change", ["chroma", "a copy", "an older copy", "no index", "damage"])
async def test_it_notices_what_others_did(tmp_path: Path, change: str) -> None:
    place = tmp_path / "chroma"
    async with ChromaStore(place) as store:
        await store.upsert(some(range(100)))
    shutil.copytree(place, older := tmp_path / "older")
    async with ChromaStore(place) as store:
        await store.upsert(some(range(100, 200)))
        await check(store, QUESTIONS[::4])
    words = next((place / "tribal-mcp/words").iterdir())
    if change == "chroma":
        with chroma(place) as client:
            collection = client.get_collection("memories", embedding_function=None)
            text, numbers = "deployed in Zürich", np.ones((1, 8), np.float32)
            collection.update(ids=["m7"], documents=[text], embeddings=numbers)
            collection.delete(ids=["m8", "m199"])
            collection.add(ids=["new"], documents=["happy deploy"], embeddings=numbers)
    elif "copy" in change:
        shutil.copytree(words, kept := tmp_path / "kept")
        if change == "an older copy":
            async with ChromaStore(older) as store:  # another history with the same numbers
                await store.upsert(some(range(1000, 1100), seed=3))
        shutil.rmtree(place)
        shutil.copytree(older, place)
        shutil.copytree(kept, words, dirs_exist_ok=True)
    elif change == "no index":
        shutil.rmtree(words.parent)
    else:
        file = max(words.glob("*.words"), key=lambda path: path.stat().st_size)
        data = bytearray(file.read_bytes())
        data[-100] ^= 0xFF
        file.write_bytes(data)
    async with ChromaStore(place) as store:
        await check(store, QUESTIONS[::4])


async def test_memories_without_vectors_are_indexed_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "WORTH_INDEXING", 200)
    entries = some(range(200))
    async with ChromaStore(tmp_path) as store:
        await store.upsert([replace(entry, embedding=None) for entry in entries])
        await check(store, QUESTIONS[::4])
        assert [*tmp_path.rglob("*.words")]  # noqa: ASYNC240
        await store.upsert(entries[:100])  # with vectors
        await check(store, QUESTIONS[::4])


async def test_a_folder_of_another_program_gets_no_index(tmp_path: Path) -> None:
    with chroma(tmp_path) as client:
        collection = client.create_collection("memories", embedding_function=None)
        collection.add(ids=["a"], documents=["deploy"], embeddings=np.ones((1, 8), np.float32))
    async with ChromaStore(tmp_path) as store:
        assert [one.id for one in await store.rank_words("deploy")] == ["a"]
    assert not [*tmp_path.rglob("words")]  # noqa: ASYNC240


async def test_a_text_of_a_wrong_type_does_not_keep_memories_from_being_counted(
    tmp_path: Path,
) -> None:
    async with ChromaStore(tmp_path) as store:
        await store.upsert(some(range(40)))
        await store.rank_words("deploy")
        await store.upsert(some(range(40, 42)))
    with closing(sqlite3.connect(tmp_path / "chroma.sqlite3")) as sql, sql:
        sql.execute(
            "UPDATE embedding_metadata SET string_value = x'ff' WHERE key = 'chroma:document' "
            "AND id = (SELECT max(id) FROM embedding_metadata)"
        )
    async with ChromaStore(tmp_path, keep_open=True) as store:
        assert (await store.state()).count == 42
        assert sum((await store.tally()).sources.values()) == 42
        with pytest.raises(StoreDamaged, match="wrong type"):
            await store.rank_words("deploy")
        await store.close()


def with_text(number: int, text: str) -> MemoryEntry:
    return replace(some([number])[0], content=text)


@pytest.mark.parametrize("log", ["the log is there", "the log was emptied"])
@pytest.mark.parametrize("change", ["forget", "update"])
async def test_an_older_copy_of_the_folder_gets_an_index_of_its_own(
    tmp_path: Path, change: str, log: str
) -> None:
    place = tmp_path / "chroma"

    async def write(number: int) -> None:
        async with ChromaStore(place) as store:
            if change == "forget":
                await store.delete([f"m{number}"])
            else:
                await store.upsert([with_text(number, "walrus")])
            if log == "the log was emptied":
                await store.close()
                with closing(sqlite3.connect(place / "chroma.sqlite3")) as sql, sql:
                    sql.execute("DELETE FROM embeddings_queue WHERE seq_id < 1000")

    async def found(word: str) -> list[str]:
        async with ChromaStore(place) as store:
            return [one.id for one in await store.rank_words(word)]

    async with ChromaStore(place) as store:
        await store.upsert([*some(range(40)), with_text(55, "zanzibar"), with_text(57, "quagmire")])
    shutil.copytree(place, tmp_path / "older")
    await write(55)
    assert (await found("zanzibar"), await found("quagmire")) == ([], ["m57"])
    shutil.copytree(tmp_path / "older", place, dirs_exist_ok=True)  # the index is kept
    await write(57)
    assert (await found("zanzibar"), await found("quagmire")) == (["m55"], [])
    assert await found("walrus") == (["m57"] if change == "update" else [])


async def test_an_index_with_a_memory_that_is_not_there_is_made_again(tmp_path: Path) -> None:
    async with ChromaStore(tmp_path, keep_open=True) as store:
        await store.upsert([*some(range(40)), with_text(55, "zanzibar")])
        assert await store.rank_words("zanzibar")
        with closing(sqlite3.connect(tmp_path / "chroma.sqlite3")) as sql, sql:
            sql.execute("DELETE FROM embeddings WHERE embedding_id = 'm55'")
        assert await store.rank_words("zanzibar") == []
        await check(store, QUESTIONS[::3])
        await store.close()


async def test_an_error_while_the_index_grows_loses_nothing_from_an_open_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreDamaged("The disk fails.")

    async with ChromaStore(tmp_path, keep_open=True) as store:
        await store.upsert(some(range(60)))
        await check(store, QUESTIONS[:1])
        await store.upsert(some(range(60, 100)))
        with monkeypatch.context() as patch:
            patch.setattr(ChromaFiles, "searchable", fail)
            assert await store.rank_words("deploy")
        await check(store, QUESTIONS[::4])
        await store.close()


@pytest.mark.parametrize("where", ["state", "head", "arrays", "wrong type"])
async def test_any_damage_has_the_index_made_again(tmp_path: Path, where: str) -> None:
    async with ChromaStore(tmp_path) as store:
        await store.upsert(some(range(60)))
        await check(store, QUESTIONS[:1])
    words = next((tmp_path / "tribal-mcp/words").iterdir())
    state, segment = words / "state.json", next(words.glob("*.words"))
    if where == "wrong type":
        state.write_text(re.sub(r'"applied": \[[^]]*\]', '"applied": null', state.read_text()))
    else:
        file = state if where == "state" else segment
        data = bytearray(file.read_bytes())
        name = {"state": b'"applied": [', "head": b'"created": ["<i8", '}.get(where)
        place = data.index(name) + len(name) if name else -9
        data[place] ^= 1
        file.write_bytes(data)
    async with ChromaStore(tmp_path) as store:
        await check(store, QUESTIONS[::4])
        assert (await store.tally()).months


async def test_a_stopped_index_is_continued_and_lets_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_index, "_FEW", 50)
    read: list[int] = []
    texts = word_index._texts

    def reading(files: ChromaFiles, rows: Sequence[tuple[int, Row]]) -> Iterator[Text]:
        read.append(len(rows))
        return texts(files, rows)

    monkeypatch.setattr(word_index, "_texts", reading)
    steps: list[tuple[int, int]] = []

    def stop_at(last: int) -> Callable[[int, int], None]:
        def on_step(done: int, total: int) -> None:
            steps.append((done, total))
            if done == last:
                raise KeyError(done)

        return on_step

    place = tmp_path / "chroma"
    async with ChromaStore(place) as store:
        await store.upsert(some(range(400)))
        with pytest.raises(KeyError):
            await store.prepare_search(stop_at(240))
    assert steps == [(0, 400), (120, 400), (240, 400)]
    async with ChromaStore(place) as store:  # as after a kill: the index is read from the disk
        await store.tally()
        await store.upsert(some(range(350, 420), seed=5))
        await store.delete(["m3"])
        await store.prepare_search(stop_at(-1))
        assert steps[3:] == [(239, 419), (359, 419)]
        await check(store, QUESTIONS[::5])
    assert read == [120, 120, 120, 60]
    async with ChromaStore(place) as store:
        await store.prepare_search(stop_at(-1))
        await check(store, QUESTIONS[::5])
    assert len(read) == 4


async def test_a_program_that_writes_between_all_steps_does_not_keep_the_index_from_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_index, "_FEW", 50)
    place, steps = tmp_path / "chroma", list[int]()
    async with ChromaStore(place) as store:
        await store.upsert(some(range(300)))
        with closing(sqlite3.connect(place / "chroma.sqlite3")) as other:

            def on_step(done: int, _total: int) -> None:
                other.execute("UPDATE embedding_metadata SET int_value = int_value")
                other.commit()
                steps.append(done)
                assert len(steps) < 10

            await store.prepare_search(on_step)
        assert steps == [0, 120, 240]
        await check(store, QUESTIONS[::5])


async def test_two_processes_that_make_the_index_at_the_same_time_share_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_index, "_FEW", 50)
    place = tmp_path / "chroma"
    async with ChromaStore(place) as store:
        await store.upsert(some(range(300)))
        with ChromaFiles(place) as files:
            kinds = [c for c in files.collections() if files.count(c)]
            working = [WordIndex(tmp_path / "words"), WordIndex(tmp_path / "words")]
            steps = 0
            while working:
                one = working.pop(0)
                steps += 1
                if not one.update(files, kinds, make=True, in_steps=True):
                    working.append(one)
            assert steps == 2 + 3 + 1  # none has two, three of 120, and the other one reads them
            assert WordIndex(tmp_path / "words").update(files, kinds, make=False)
