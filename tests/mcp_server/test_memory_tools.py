"""The tools for single memories, in a conversation over real stdio."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mcp import Client

from tests.support.embedding_server import embedding_server, words_vector
from tests.support.examples import memory
from tests.support.mcp_client import (
    ERAS,
    call,
    connected,
    read_back,
    settings,
    text_of,
    write_bundle,
    write_many,
)
from tribal_mcp.mcp_server.server import build_server
from tribal_mcp.services.memories.answer import ANSWER_BYTES

pytestmark = pytest.mark.anyio


async def found(client: Client, query: str, **more: object) -> list[str]:
    """The ids that a question finds, the best first."""
    result = await call(client, "tribal_recall", query=query, **more)
    assert result["next_step"].endswith(".")
    return [hit["id"] for hit in result["hits"]]


async def converse(client: Client, way: str) -> dict[str, Any]:
    """Remember, recall, correct, recall, forget, recall; the last counts."""
    office = await call(
        client,
        "tribal_remember",
        content="The office is in Bern",
        tags=["work"],
        context="contract",
    )
    await call(client, "tribal_remember", content="The cat is called Tofu", tags=["home"])
    await call(client, "tribal_remember", content="Invoices go out on Friday", tags=["work"])
    recalled = await call(client, "tribal_recall", query="Where is the office?")
    assert recalled["searched_by"] == way
    first = recalled["hits"][0]
    assert (first["id"], first["content"]) == (office["id"], "The office is in Bern")
    assert (first["found_by"], first["tags"], first["superseded_by"]) == (way, ["work"], [])
    assert "data" in recalled["notice"]

    again = await call(client, "tribal_remember", content="The office is in Bern")
    assert (again["created"], again["id"]) == (False, office["id"])

    moved = await call(
        client, "tribal_remember", content="Moved to Geneva in May", supersedes=office["id"]
    )
    assert (await found(client, "Where is the office?"))[:2] == [moved["id"], office["id"]]
    assert office["id"] not in await found(client, "office", tags=["home"])

    dry = await call(client, "tribal_forget", ids=[moved["id"], "nobody"], dry_run=True)
    assert (dry["forgotten"], dry["not_here"]) == ([moved["id"]], ["nobody"])
    assert dry["current_again"] == [office["id"]]
    assert moved["id"] in await found(client, "Where is the office?")
    gone = await call(client, "tribal_forget", ids=[moved["id"], office["id"]])
    assert set(gone["forgotten"]) == {moved["id"], office["id"]}
    assert not {moved["id"], office["id"]} & set(await found(client, "Geneva, Bern, office"))
    stats = await call(client, "tribal_stats")

    await call(client, "tribal_undo", point=gone["restore_point"])
    assert (await found(client, "Where is the office?"))[:2] == [moved["id"], office["id"]]
    return stats


async def test_recall_without_a_query_lists_the_newest(tmp_path: Path) -> None:
    async with connected(tmp_path) as client:
        for number in range(7):
            await call(client, "tribal_remember", content=f"Fact {number}", tags=["fact"])
        first = await call(client, "tribal_recall")
        assert [hit["content"] for hit in first["hits"]] == [f"Fact {n}" for n in range(6, 1, -1)]
        assert (first["searched_by"], first["total"]) == ("date", 7)
        assert "tribal_recall(count=5, page=2)" in first["next_step"]
        second = await call(client, "tribal_recall", page=2, tags=["fact"])
        assert [hit["content"] for hit in second["hits"]] == ["Fact 1", "Fact 0"]


@ERAS
async def test_a_conversation_without_an_embedding_model_uses_keyword_search(
    tmp_path: Path, era: str
) -> None:
    async with connected(tmp_path, era, TRIBAL_INSTANCE="desk") as client:
        stats = await converse(client, "words")
        exported = await call(client, "tribal_export", output_path="all.json")
        after = await call(client, "tribal_stats")
    assert (stats["count"], stats["without_vector"], stats["forgotten"]) == (2, 2, 2)
    assert stats["tags"] == {"home": 1, "work": 1}
    assert stats["sources"] == {"user_explicit": 2}
    assert list(stats["months"].values()) == [2]
    assert stats["bytes"] > 0
    assert stats["last_export"] is None
    last = after["last_export"]
    assert (last["memory_count"], last["filters"]) == (exported["memory_count"], "all memories")
    assert last["path"] == str(tmp_path / "all.json")
    assert sum(after["months"].values()) == 4
    assert {entry["source_instance"] for entry in read_back(tmp_path).values()} == {"desk"}


async def test_a_conversation_with_an_embedding_model_uses_semantic_search(tmp_path: Path) -> None:
    with embedding_server() as model:
        async with connected(tmp_path, **model.settings(384)) as client:
            stats = await converse(client, "meaning")
    assert (stats["count"], stats["without_vector"]) == (2, 0)
    assert stats["embedding"]["model_name"] == "words-384"
    stored = read_back(tmp_path)
    assert {e["content"]: e["embedding"] for e in stored.values()} == {
        text: pytest.approx(words_vector(text, 384))
        for text in (e["content"] for e in stored.values())
    }


async def test_stats_do_not_wait_for_a_writing_process(tmp_path: Path) -> None:
    write_many(tmp_path / "some.json", 3)
    async with connected(tmp_path) as client:
        await call(client, "tribal_import", input_path="some.json")
        with FileLock(tmp_path / "store" / "tribal-mcp" / "lock"):
            stats = await call(client, "tribal_stats")
    assert stats["tags"] == {"home": 2, "work": 1}
    assert stats["months"] == {"2026-01": 3}


async def test_recall_bounds_the_size_of_its_answer(tmp_path: Path) -> None:
    write_bundle(
        tmp_path / "long.json", [memory(n, content=f"Fact {n} " + "ü " * 9000) for n in range(30)]
    )
    async with connected(tmp_path) as client:
        await call(client, "tribal_import", input_path="long.json")
        result = await client.call_tool("tribal_recall", {"query": "fact", "count": 20})
    assert len(text_of(result).encode()) <= ANSWER_BYTES
    assert result.structured_content is not None
    assert len(result.structured_content["hits"]) == 20


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    for name, value in settings(tmp_path).items():
        monkeypatch.setenv(name, value)
    async with Client(build_server()) as client:
        yield client


@pytest.mark.parametrize("text", ['{"a": 1}', "123", "null", '["x"]', " x\u200b\n"])
async def test_remember_keeps_text_that_looks_like_json_unchanged(
    server: Client, text: str
) -> None:
    said = await call(server, "tribal_remember", content=text, confidence=1)
    [hit] = (await call(server, "tribal_recall", query=text))["hits"]
    assert (hit["id"], hit["content"]) == (said["id"], text)


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("tribal_remember", {}, "content: a value is required."),
        ("tribal_remember", {"content": "x", "confidence": 2}, "confidence must be at most 1"),
        ("tribal_remember", {"content": "x", "confidence": "0.5"}, "confidence must be a number"),
        ("tribal_recall", {"query": "x", "count": "5"}, "count must be a whole number"),
        (
            "tribal_remember",
            {"content": "x", "source_type": "rumour"},
            "source_type must be '', 'user_explicit'",
        ),
        (
            "tribal_remember",
            {"text": "x"},
            "There is no argument 'text'. The arguments are: content",
        ),
        (
            "tribal_remember",
            {"content": "x", "supersedes": "y"},
            "There is no memory 'y' to supersede.",
        ),
        ("tribal_recall", {"query": "x", "page": 2}, "Only a list without a query has pages"),
        ("tribal_recall", {"query": "x", "count": 21}, "count must be at most 20"),
        ("tribal_recall", {"query": "x", "date_from": "soon"}, "not an ISO 8601 date"),
        ("tribal_recall", {"query": "x", "tags": [""]}, "A tag is empty"),
        ("tribal_forget", {}, "ids: a value is required."),
        ("tribal_forget", {"ids": ["x"], "dry_run": "false"}, "dry_run must be true or false"),
    ],
)
async def test_invalid_arguments_are_refused_with_a_message(
    server: Client, tool: str, arguments: dict[str, Any], why: str
) -> None:
    result = await server.call_tool(tool, arguments)
    assert result.is_error
    assert why in text_of(result)


async def test_the_note_about_embedding_names_one_setting_and_is_not_repeated(
    tmp_path: Path,
) -> None:
    async with connected(tmp_path) as client:
        notes: list[str] = []
        for number in range(3):
            made = await call(client, "tribal_remember", content=f"Fact {number}")
            notes += made["notes"]
            notes += (await call(client, "tribal_recall", query="fact"))["notes"]
    [note] = notes
    assert note.startswith("Stored without an embedding: keyword search finds it")
    assert note.endswith("For semantic search, set TRIBAL_EMBEDDING_PROVIDER=default.")


async def test_a_day_of_a_new_user_needs_nothing_but_the_results(tmp_path: Path) -> None:
    async with connected(tmp_path) as client:

        async def contents() -> list[str]:
            listed = await call(client, "tribal_recall")
            return sorted(hit["content"] for hit in listed["hits"])

        branch = await call(client, "tribal_remember", content="The deploy branch is release")
        await call(client, "tribal_remember", content="Takes tea without milk")
        remembered = await contents()
        assert remembered == ["Takes tea without milk", "The deploy branch is release"]
        backup = (await call(client, "tribal_export"))["output_path"]
        await call(client, "tribal_remember", content="Came later")
        await call(client, "tribal_forget", ids=[branch["id"]])
        later = await contents()
        exactly = {"input_path": backup, "conflict_resolution": "mirror"}
        dry = await call(client, "tribal_import", dry_run=True, **exactly)
        assert (dry["imported"], dry["deleted"], await contents()) == (1, 1, later)
        await call(client, "tribal_import", **exactly)
        assert await contents() == remembered
        await call(client, "tribal_undo")
        assert await contents() == later
        await call(client, "tribal_undo")
        assert await contents() == sorted([*remembered, "Came later"])
