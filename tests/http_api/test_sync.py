"""`POST /v1/sync`: the same as the command, with the folder of the setting."""

import json
from pathlib import Path

import anyio
import pytest
from fastapi import FastAPI
from filelock import FileLock

from tests.http_api.conftest import COUNT
from tests.services.sync.machines import Machine, imported
from tests.support.examples import memory
from tests.support.http_client import HttpServer, serving
from tribal_mcp.http_api.routes import SYNC, add_routes
from tribal_mcp.http_api.schemas import SyncFields
from tribal_mcp.services.requests import SyncRequest

pytestmark = pytest.mark.anyio

WAITING = b"Another sync of this store is running"


async def test_a_client_withdraws_what_another_machine_has_imported(
    server: HttpServer, folder: Path
) -> None:
    planned = server.ask("POST", "/v1/sync", {"name": "server", "dry_run": True}).json
    assert (planned["published"], planned["next_step"][:12]) == (COUNT, "Nothing was ")
    assert server.ask("POST", "/v1/sync", {"name": "server"}).json["published"] == COUNT

    laptop = Machine(folder / "laptop", folder / "shared")
    await laptop.sync()
    bad = await imported(laptop, [memory(n, content="wrong") for n in (1, 99)])
    await laptop.sync()
    listed = server.ask("POST", "/v1/sync", {"operations": True}).json
    assert (listed["added"], listed["changed"]) == (1, 1)
    assert listed["operations"][0]["operation"] == bad
    assert f'`POST /v1/sync {{"withdraw": "{bad}", "dry_run": true}}`' in listed["next_step"]

    done = server.ask("POST", "/v1/sync", {"withdraw": bad}).json["withdrawn"]
    assert (done["deleted"], done["restored"], done["machine"]) == (1, 1, "laptop")
    await laptop.sync()
    texts = await laptop.texts()
    assert len(texts) == COUNT
    assert "wrong" not in texts.values()


async def test_a_sync_waits_for_another_and_stops_if_its_client_disconnects(
    server: HttpServer, folder: Path
) -> None:
    own = folder / "store" / "tribal-mcp" / "sync"
    own.mkdir(exist_ok=True)
    body = json.dumps({"name": "server"})
    ask = {"Accept": "text/event-stream", "Content_Type": "application/json"}
    with FileLock(own / "lock"):
        for _ in range(5):  # the first ones give their places back, or the last one would wait
            with server.request("POST", "/v1/sync", body, **ask) as events:
                while WAITING not in events.readline():
                    pass
        running = server.request("POST", "/v1/sync", body, **ask)
        last = running.__enter__()
        while WAITING not in last.readline():
            pass
    said = await anyio.to_thread.run_sync(last.read)
    running.__exit__(None, None, None)
    assert b"event: result" in said


def test_a_read_only_client_may_only_look(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    tokens = {"TRIBAL_HTTP_TOKEN": "one-of-the-tests", "TRIBAL_HTTP_READ_TOKEN": "b-of-the-tests"}
    with serving(tmp_path, TRIBAL_SYNC_DIR=str(tmp_path / "shared"), **tokens) as server:
        may = {"Authorization": "Bearer b-of-the-tests"}
        assert server.ask("POST", "/v1/sync", {}, **may).problem == (403, "not_permitted")
        assert server.ask("POST", "/v1/sync", {"dry_run": True}, **may).status == 200
    assert list((tmp_path / "shared").iterdir()) == []


def test_without_a_folder_there_is_no_route_and_all_other_options_are_fields() -> None:
    app = FastAPI()
    add_routes(app, syncs=False)
    assert f"/v1/{SYNC.name}" not in app.openapi()["paths"]
    assert SyncFields.model_fields.keys() == SyncRequest.model_fields.keys() - {"folder"}
