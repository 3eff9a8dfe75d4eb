"""Options that are null, given twice or in the wrong place: never a real run by mistake."""

import json
import socket

import pytest

from tests.http_api.conftest import COUNT
from tests.support.examples import SAMPLES
from tests.support.http_client import HttpServer

SAMPLE = json.loads((SAMPLES / "hand5.inmemory.json").read_text())
REFUSED: dict[str, tuple[str, object]] = {
    "a dry run inside the bundle": ("/v1/import", SAMPLE | {"dry_run": True}),
    "a misspelled dry run inside the bundle": ("/v1/import", SAMPLE | {"dry-run": True}),
    "a misspelled dry run beside the bundle": ("/v1/import", {"bundle": SAMPLE, "dryrun": True}),
    "a misspelled null beside the bundle": ("/v1/import", {"bundle": SAMPLE, "dryrun": None}),
    "a dry run before a bundle without its own name": ("/v1/import", {"dry_run": True} | SAMPLE),
    "a dry run twice in the query": ("/v1/import?dry_run=true&dry_run=false", SAMPLE),
    "a misspelled dry run in the query": ("/v1/import?dryrun=true", SAMPLE),
    "a dry run both ways": ("/v1/import?dry_run=true", {"bundle": SAMPLE, "dry_run": False}),
    "a manifest that is null": ("/v1/import", SAMPLE | {"manifest": None}),
    "a dry run in the query of an undo": ("/v1/undo?dry_run=true", {}),
    "a dry run in the query of a sync": ("/v1/sync?dry_run=true", {}),
    "a version below zero": ("/v1/sync", {"resolve": "memory-1", "version": -1}),
    "a version of no conflict": ("/v1/sync", {"version": 1}),
    "half a surrogate pair": ("/v1/sync", '{"resolve": "\\ud800"}'),
    "half a surrogate pair in a name": ("/v1/sync", '{"name": "\\ud800"}'),
    "a name that is empty": ("/v1/sync", {"name": " "}),
    "a folder of the client": ("/v1/sync", {"folder": "shared"}),
    "a dry run in the query of reembed": ("/v1/reembed?dry_run=true", {}),
    "a dry run twice in a body": ("/v1/undo", '{"dry_run": true, "dry_run": false}'),
    "a date twice in the query": ("/v1/export?date_to=2026-01-01&date_to=2027-01-01", {}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_misplaced_option_is_refused_and_changes_nothing(case: str, server: HttpServer) -> None:
    path, body = REFUSED[case]
    answer = server.ask("POST", path, body, Content_Type="application/json")
    assert answer.problem[0] in {400, 422}
    assert server.ask("GET", "/v1/stats").json["count"] == COUNT


def test_null_means_not_given(server: HttpServer) -> None:
    nulls = {"tags": None, "date_from": None, "since": None, "include_related": None}
    assert server.ask("POST", "/v1/export", nulls).headers["tribal-memory-count"] == str(COUNT)
    undo = server.ask("POST", "/v1/undo", {"point": None, "dry_run": True})
    assert undo.status == 200, undo.body
    body = {"bundle": SAMPLE, "conflict_resolution": None, "strict": None, "dry_run": True}
    assert server.ask("POST", "/v1/import", body).json["dry_run"] is True


def test_several_tags_may_stand_in_the_query(server: HttpServer) -> None:
    assert server.ask("POST", "/v1/export?tags=work&tags=home").status == 200


def test_the_answer_of_tribalmemory_to_an_export_can_be_imported(server: HttpServer) -> None:
    answer = (SAMPLES / "http-answer.json").read_bytes()
    result = server.ask("POST", "/v1/import?dry_run=true", answer).json
    assert (result["total"], result["imported"]) == (3, 3)
    failed = json.dumps({"success": False, "memory_count": 0, "bundle": None, "error": "no"})
    refused = server.ask("POST", "/v1/import", failed)
    assert refused.problem == (422, "bundle_error")
    assert "failed" in refused.json["detail"]


def test_a_body_with_two_lengths_is_refused(server: HttpServer) -> None:
    head = (
        f"POST /v1/undo HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode() + b"2\r\n{}\r\n0\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
