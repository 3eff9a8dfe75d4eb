"""Collections of other programs: read completely, without running the code they name."""

import json
import socket
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from chromadb import HttpClient
from chromadb.utils import embedding_functions

from tests.support.chroma_folders import chroma, create, vectors
from tests.support.chroma_servers import RealServer
from tests.support.examples import memory
from tribal_mcp.errors import StoreError
from tribal_mcp.services.import_export import export_memories
from tribal_mcp.stores.base import UNDATED
from tribal_mcp.stores.chroma import write as batches
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.lock import FolderLock
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.chroma_server.http import ChromaServer
from tribal_mcp.stores.chroma_server.store import ChromaServerStore

pytestmark = pytest.mark.anyio

_CONFIG = {"model_name": "x/y", "device": "cpu", "trust_remote_code": True}


class _Canary:
    """An embedding function that counts how often it is constructed."""

    constructed = 0

    def __init__(self, *_: object, **__: object) -> None:
        _Canary.constructed += 1

    def __call__(self, input: list[str]) -> list[Any]:  # noqa: A002 - Chroma's name
        return [np.ones(8, np.float32) for _ in input]

    @staticmethod
    def name() -> str:
        return "canary"

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "_Canary":
        return _Canary(**config)

    def get_config(self) -> dict[str, Any]:
        return {}


def _plant(folder: Path, name: str) -> None:
    """Write an embedding function into the stored settings, as a malicious folder has it."""
    planted = {"type": "known", "name": name, "config": _CONFIG}
    with sqlite3.connect(folder / "chroma.sqlite3") as database:
        for column in ("schema_str", "config_json_str"):
            (text,) = database.execute(f"SELECT {column} FROM collections").fetchone()  # noqa: S608
            stored = json.loads(text or "{}")
            _replace(stored, planted)
            database.execute(f"UPDATE collections SET {column} = ?", (json.dumps(stored),))  # noqa: S608
    database.close()


def _replace(node: object, planted: dict[str, Any]) -> None:
    for key, child in node.items() if isinstance(node, dict) else ():
        if key != "sparse_vector_index":
            _replace(child, planted)
    if isinstance(node, dict) and "embedding_function" in node:
        node["embedding_function"] = planted
    if isinstance(node, dict) and "hnsw" in node and isinstance(node["hnsw"], dict):
        node.setdefault("embedding_function", planted)


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> type[_Canary]:
    """Registered under its own name and under that of a class that would download code."""
    _Canary.constructed = 0
    for name in ("canary", "sentence_transformer"):
        monkeypatch.setitem(embedding_functions.known_embedding_functions, name, _Canary)
    return _Canary


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The connections that are opened during the test."""
    opened: list[object] = []

    def connect(*arguments: object) -> None:
        opened.append(arguments)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return opened


def _foreign(folder: Path) -> None:
    folder.mkdir()
    with chroma(folder) as client:
        collection = client.create_collection(
            "memories", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )
        collection.add(
            ids=["one", "two"],
            embeddings=np.eye(2, 8, dtype=np.float32),
            documents=["first", "second"],
            metadatas=[{"user": "me", "rank": 3, "tags": ["a", "b"], "ok": True}, {"x": 0.5}],
        )


@pytest.mark.parametrize("name", ["canary", "sentence_transformer"])
async def test_a_planted_embedding_function_is_never_constructed(
    tmp_path: Path, canary: type[_Canary], sockets: list[object], name: str
) -> None:
    folder = tmp_path / "store"
    _foreign(folder)
    _plant(folder, name)
    async with ChromaStore(folder) as store:
        assert (await store.state()).count == 2
        assert (await store.get_many(["one"])).keys() == {"one"}
        with pytest.raises(StoreError, match=name):
            await store.upsert([memory(1)])
        with pytest.raises(StoreError, match=name):
            await store.upsert([memory(1, id="one")])
        assert await store.list_ids() == ["one", "two"]
        assert await store.delete(["two"]) == 1
        assert await store.check()
    assert canary.constructed == 0
    assert sockets == []


async def test_a_recovery_leaves_collections_alone_that_this_program_never_wrote(
    tmp_path: Path, canary: type[_Canary], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    _foreign(folder)
    _plant(folder, "canary")
    async with ChromaStore(folder, "ours") as store:
        await store.upsert([memory(1)])
    FolderLock(folder).set_marker()
    monkeypatch.setattr("tribal_mcp.stores.chroma.lock.boot_id", lambda: "another")
    async with ChromaStore(folder, "ours") as store:
        assert (await store.get_many(["memory-1"]))["memory-1"] == memory(1)
        assert await store.check() == []
    assert canary.constructed == 0


async def test_without_the_check_the_embedding_function_would_be_constructed(
    tmp_path: Path, canary: type[_Canary], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    _foreign(folder)
    _plant(folder, "canary")
    monkeypatch.setattr(batches, "check_embedding_function", lambda _: None)
    async with ChromaStore(folder) as store:
        await store.upsert([memory(1)])
    assert canary.constructed > 0


@pytest.mark.parametrize("name", ["canary", "sentence_transformer"])
async def test_an_embedding_function_that_a_server_names_is_never_constructed(
    tmp_path: Path, canary: type[_Canary], chroma_server: RealServer, name: str
) -> None:
    server = ChromaServer(chroma_server.url)
    planted = {"type": "known", "name": name, "config": _CONFIG}
    configuration = {"hnsw": {"space": "l2"}, "embedding_function": planted}
    collections = f"{server.url}/api/v2/tenants/{server.tenant}/databases/{server.database}"
    body = {"name": f"planted-{name}", "configuration": configuration}
    async with httpx.AsyncClient() as http:
        assert (await http.post(f"{collections}/collections", json=body)).is_success
    async with ChromaServerStore(server, f"planted-{name}", own_folder=tmp_path) as store:
        await store.upsert([memory(1), memory(2), memory(3, embedding=None)])
        assert (await store.state()).count == 3
        assert await store.get_many(["memory-1"]) == {"memory-1": memory(1)}
        assert await store.delete(["memory-2"]) == 1
    assert canary.constructed == 0
    # Chroma's own client constructs it.
    with suppress(Exception):
        client = HttpClient("127.0.0.1", chroma_server.port)
        client.get_collection(f"planted-{name}").add(ids=["x"], documents=["text"])
    assert canary.constructed > 0


async def test_every_key_of_a_foreign_record_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    _foreign(folder)
    async with ChromaStore(folder) as store:
        state = await store.state()
        found = await store.get_many(["one", "two"])
    assert state.foreign
    assert state.identity is None
    assert found["one"].content == "first"
    assert found["one"].metadata == {"user": "me", "rank": 3, "tags": ["a", "b"], "ok": True}
    assert found["one"].extra[UNDATED] is True
    assert found["two"].metadata == {"x": 0.5}


async def test_a_foreign_key_with_the_name_of_our_other_models_key_is_ignored(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    texts = ["", "no JSON", "[]", "{}", '{"extra":[]}', '{"extra":{"embedding_model":5}}']
    marked: list[dict[str, Any]] = [{"tribal_other_model": 1}]
    marked += [{"tribal_other_model": 1, "tribal_json": text} for text in texts]
    with chroma(folder) as client:
        ids = [str(n) for n in range(len(marked))]
        create(client).add(
            ids=ids,
            embeddings=vectors(len(marked)),
            documents=ids,
            metadatas=marked,  # type: ignore[arg-type]
        )
    async with ChromaStore(folder) as store:
        assert await store.other_models() == {}
        bundle = await export_memories(store)
    assert [entry.metadata for entry in bundle.entries] == marked
    assert "other_models" not in bundle.manifest.extra


async def test_a_foreign_collection_is_writable(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    _foreign(folder)
    async with ChromaStore(folder) as store:
        await store.upsert([memory(1), memory(2, embedding=None)])
        assert await store.get("memory-1") == memory(1)
        assert (await store.state()).pending == 1
        assert await store.list_ids() == ["one", "two", "memory-1", "memory-2"]


async def test_collections_of_other_databases_are_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    _foreign(folder)
    with sqlite3.connect(folder / "chroma.sqlite3") as database:
        (tenant,) = database.execute("SELECT tenant_id FROM databases").fetchone()
        database.execute("INSERT INTO databases VALUES ('another', 'another', ?)", (tenant,))
        database.execute("UPDATE collections SET database_id = 'another'")
    database.close()
    async with ChromaStore(folder) as store:
        assert await store.count() == 0
        await store.upsert([memory(1)])
        assert await store.list_ids() == ["memory-1"]
    ChromaFolder.at(folder).close()
