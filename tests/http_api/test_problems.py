"""Requests that are refused with a problem (RFC 9457), and next steps as requests."""

import json
from pathlib import Path

import pytest

from tests.http_api.conftest import COUNT
from tests.support.http_client import HttpServer
from tribal_mcp.http_api.next_steps import as_request

BUNDLE = {"manifest": {"schema_version": "1.0", "memory_count": 0}, "entries": []}


@pytest.mark.parametrize(
    ("path", "body", "headers", "expected"),
    [
        ("/v1/export", {"tag": ["work"]}, {}, (422, "invalid_request")),
        ("/v1/export?tag=work", None, {}, (422, "invalid_request")),
        ("/v1/export", {"output_path": "x.json"}, {}, (422, "invalid_request")),
        ("/v1/export", {"spool_file": "x"}, {}, (422, "invalid_request")),
        ("/v1/export", {"tags": "work"}, {}, (422, "invalid_request")),
        ("/v1/export", "{", {"Content_Type": "application/json"}, (400, "not_json")),
        ("/v1/export", "{}", {"Content_Type": "text/plain"}, (415, "wrong_type")),
        ("/v1/export", {"date_from": "yesterday"}, {}, (400, "usage_error")),
        ("/v1/export?tags=a", {"tags": ["b"]}, {}, (400, "usage_error")),
        ("/v1/export", None, {"Accept": "text/html"}, (406, "not_acceptable")),
        ("/v1/export", b" " * 2_000_000, {}, (413, "too_large")),
        ("/v1/import?dry_run=yes", BUNDLE, {}, (422, "invalid_request")),
        ("/v1/export", {"include_related": 1}, {}, (422, "invalid_request")),
        ("/v1/undo", {"dry_run": 0}, {}, (422, "invalid_request")),
        ("/v1/undo", {"dryrun": True}, {}, (422, "invalid_request")),
        ("/v1/export", {"since": "backup.json"}, {}, (422, "invalid_request")),
        ("/v1/import?dryrun=true", BUNDLE, {}, (422, "invalid_request")),
        ("/v1/import?input_path=many.json", BUNDLE, {}, (422, "invalid_request")),
        ("/v1/import?conflict_resolution=", BUNDLE, {}, (422, "invalid_request")),
        ("/v1/import", None, {}, (400, "no_body")),
        ("/v1/import", b"", {}, (400, "no_body")),
        ("/v1/import", b"<html>", {}, (422, "bundle_error")),
        ("/v1/import", b'{"manifest": {}, "entries": [', {}, (422, "bundle_error")),
        ("/v1/import", b"{}", {"Content_Type": "multipart/form-data"}, (415, "wrong_type")),
        ("/v1/import", b"{}", {"Content_Encoding": "br"}, (415, "wrong_encoding")),
        ("/v1/import", b"{}", {"Content_Encoding": "gzip, gzip"}, (415, "wrong_encoding")),
        ("/v1/import", b"{}", {"Content_Encoding": "gzip"}, (400, "wrong_encoding")),
        ("/v1/import", b"\x1f\x8b\x08 damaged", {}, (422, "bundle_error")),
        ("/v1/import", {"bundle": BUNDLE, "dryrun": True}, {}, (400, "usage_error")),
        ("/v1/import", {"bundle": BUNDLE, "dry_run": "true"}, {}, (400, "usage_error")),
        ("/v1/import", {"bundle": BUNDLE, "input_path": "x"}, {}, (400, "usage_error")),
        ("/v1/import?strict=true", {"bundle": BUNDLE, "strict": True}, {}, (400, "usage_error")),
        ("/v1/import", {"dry_run": True}, {}, (422, "bundle_error")),
        ("/v1/import", {"bundle": 5}, {}, (422, "bundle_error")),
        ("/v1/imports", BUNDLE, {}, (404, "not_found")),
        ("/v1/export/", None, {}, (404, "not_found")),
        ("/v1/stats", None, {}, (405, "method_not_allowed")),
    ],
    ids=str,
)
def test_invalid_requests_are_refused_with_a_problem(
    server: HttpServer,
    path: str,
    body: object,
    headers: dict[str, str],
    expected: tuple[int, str],
) -> None:
    assert server.ask("POST", path, body, **headers).problem == expected
    assert server.ask("GET", "/v1/stats").json["count"] == COUNT


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("/v1/export", {"tag": ["work"]}, "There is no field 'tag'."),
        ("/v1/export", {"tags": "work"}, "tags must be a list."),
        ("/v1/export", {"tags": [1]}, "tags[0] must be a string."),
        ("/v1/export", [], "The body must be an object."),
        ("/v1/export", {"since": "backup.json"}, "since must be an ISO 8601 time, such as"),
        ("/v1/import?dry_run=yes", BUNDLE, "dry_run must be true or false."),
        (
            "/v1/import?conflict_resolution=newest",
            BUNDLE,
            (
                "conflict_resolution must be 'skip', 'overwrite', 'merge', 'keep_both', 'fail' or "
                "'mirror'."
            ),
        ),
        ("/v1/undo", {"point": 5}, "point must be a string."),
        ("/v1/undo", "{", "The body is not valid JSON at character 1."),
    ],
    ids=str,
)
def test_a_problem_names_the_invalid_field_and_its_values(
    server: HttpServer, path: str, body: object, detail: str
) -> None:
    sent = body if isinstance(body, str) else json.dumps(body)
    answer = server.ask("POST", path, sent, Content_Type="application/json")
    assert answer.problem[0] in (400, 422)
    assert detail in answer.json["detail"]


@pytest.mark.parametrize(
    ("action", "arguments", "request_line"),
    [
        ("undo", {"point": "20261125-1"}, '`POST /v1/undo {"point": "20261125-1"}`'),
        (
            "import",
            {"conflict_resolution": "merge", "dry_run": False},
            "`POST /v1/import?conflict_resolution=merge`",
        ),
        ("import", {"input_path": "a.json", "dry_run": True}, "`POST /v1/import?dry_run=true`"),
        (
            "export",
            {"output_path": ..., "since": "2026-01-31"},
            '`POST /v1/export {"since": "2026-01-31"}`',
        ),
        ("reembed", {}, "`POST /v1/reembed`"),
        ("sync", {"folder": "/s", "operations": True}, '`POST /v1/sync {"operations": true}`'),
        ("stats", {}, "`GET /v1/stats`"),
        ("check", {"repair": True}, "`tribal-mcp check --repair` on the command line"),
    ],
)
def test_next_steps_are_requests_that_can_be_sent(
    action: str, arguments: dict[str, object], request_line: str
) -> None:
    assert as_request(action, arguments) == request_line


def test_an_import_that_rejects_every_entry_is_a_problem_with_the_result(
    server: HttpServer, folder: Path
) -> None:
    bad = json.loads((folder / "many.json").read_text()) | {"entries": [{"id": "a"}, {"id": "b"}]}
    bad["manifest"]["memory_count"] = 2
    del bad["integrity"]
    answer = server.ask("POST", "/v1/import", bad)
    assert answer.problem == (422, "partial_import")
    assert answer.json["result"]["errors"] == 2
    assert len(answer.json["result"]["error_details"]) == 2
