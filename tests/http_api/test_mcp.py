"""MCP over HTTP, the OpenAPI document, and the shutdown of the server."""

import json
import signal
from pathlib import Path

import pytest
from mcp import Client

from tests.support.http_client import serving, spool_files
from tests.support.mcp_client import (
    ERAS,
    call,
    described,
    read_back,
    watched,
    write_bundle,
    write_many,
)
from tribal_mcp.portability.bundle.reader import BundleReader

MANY = 6_000
IMPORTING = b'"Imported '


@pytest.mark.anyio
@ERAS
async def test_the_tools_work_the_same_over_http(era: str, tmp_path: Path) -> None:
    write_many(tmp_path / "many.json", 30)
    over_stdio = await described()
    with serving(tmp_path, TRIBAL_SYNC_DIR=str(tmp_path / "shared")) as server:
        async with Client(f"{server.url}/mcp", mode=era) as client:
            tools = (await client.list_tools()).tools
            assert [t.model_dump(by_alias=True, exclude_none=True) for t in tools] == over_stdio[
                "tools"
            ]
            seen: list[float] = []

            async def progress(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - as the SDK calls it
                seen.append(progress)

            arguments = {"input_path": "many.json"}
            result = await client.call_tool("tribal_import", arguments, progress_callback=progress)
            assert result.structured_content is not None
            assert result.structured_content["imported"] == 30
            assert seen == sorted(set(seen))
            exported = await call(client, "tribal_export", tags=["work"], output_path="work.json")
            assert exported["memory_count"] == 15
            outside = await client.call_tool("tribal_import", {"input_path": "/etc/passwd.json"})
            assert outside.is_error
        assert server.ask("GET", "/v1/stats").json["count"] == 30
        assert server.stop()[0] == -signal.SIGTERM
    with (tmp_path / "work.json").open("rb") as file:
        assert BundleReader(file).verify().count == 15


def test_invalid_mcp_messages_are_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        accept = {"Accept": "application/json, text/event-stream"}
        for body, headers in (
            (b"{", {**accept, "Content_Type": "application/json"}),
            (b"{}", {**accept, "Content_Type": "text/plain"}),
            (b"{}", {"Content_Type": "application/json", "Accept": "text/html"}),
        ):
            assert 400 <= server.ask("POST", "/mcp", body, **headers).status < 500
        large = server.ask("POST", "/mcp", b" " * 10_000_000, Content_Type="application/json")
        assert large.problem == (413, "too_large")


def test_an_import_stops_after_its_batch_when_the_client_disconnects(tmp_path: Path) -> None:
    write_many(tmp_path / "many.json", MANY)
    body = (tmp_path / "many.json").read_bytes()
    with serving(tmp_path, "dispatch.MAX_CALLS = 1") as server:
        with server.request("POST", "/v1/import", body, Accept="text/event-stream") as answer:
            while IMPORTING not in answer.readline():
                pass
        while (stats := server.ask("GET", "/v1/stats")).status == 429:
            pass
        assert 0 < stats.json["count"] < MANY
        assert spool_files(tmp_path) == []
        again = server.ask("POST", "/v1/import", body).json
        assert (again["identical"], again["total"]) == (stats.json["count"], MANY)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_an_import_after_its_batch_and_ends_the_server(
    number: signal.Signals, tmp_path: Path
) -> None:
    write_many(tmp_path / "many.json", MANY)
    body = (tmp_path / "many.json").read_bytes()
    with serving(tmp_path) as server:
        with server.request("POST", "/v1/import", body, Accept="text/event-stream") as answer:
            while IMPORTING not in answer.readline():
                pass
            [worker] = server.workers()
            with watched(worker) as ended:
                code, said = server.stop(number)
                assert ended()
        assert code == (130 if number == signal.SIGINT else -number)
        assert "Traceback" not in said, said
    assert 0 < len(read_back(tmp_path)) < MANY
    assert spool_files(tmp_path) == []


def test_a_shutdown_ends_the_events_of_a_running_import(tmp_path: Path) -> None:
    write_many(tmp_path / "many.json", MANY)
    body = (tmp_path / "many.json").read_bytes()
    with serving(tmp_path) as server:
        with server.request("POST", "/v1/import", body, Accept="text/event-stream") as events:
            while IMPORTING not in events.readline():
                pass
            server.process.send_signal(signal.SIGTERM)
            rest = events.read()
        assert b"event: result" not in rest
        server.process.wait(timeout=120)


def test_the_openapi_document_describes_every_route_and_problem(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        page = server.ask("GET", "/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "script" not in page.body.decode()
        assert "default-src 'none'" in page.headers["content-security-policy"]
        document = server.ask("GET", "/openapi.json").json
    problem = {"$ref": "#/components/schemas/ProblemResult"}
    for path, operations in document["paths"].items():
        assert f"{path}</code>" in page.body.decode()
        for operation in operations.values():
            assert operation["summary"]
            assert operation["description"]
            for status, said in operation["responses"].items():
                assert said["description"], (path, status)
                if int(status) >= 400 and path != "/v1/health":
                    assert said["content"] == {"application/problem+json": {"schema": problem}}
    assert document["components"]["schemas"]["ProblemResult"]["required"]
    assert json.dumps(document).count("HTTPValidationError") == 0


def test_two_servers_on_one_store_transfer_bundles_independently(tmp_path: Path) -> None:
    write_bundle(tmp_path / "none.json", [])
    write_many(tmp_path / "many.json", 300)
    body = (tmp_path / "many.json").read_bytes()
    with serving(tmp_path) as one, serving(tmp_path) as other:
        assert one.ask("POST", "/v1/import", body).json["imported"] == 300
        assert other.ask("POST", "/v1/import", body).json["identical"] == 300
        assert one.ask("POST", "/v1/export").headers["tribal-memory-count"] == "300"
    assert spool_files(tmp_path) == []
