"""Bundles over HTTP, through a real server."""

import gzip
import json
import re
import shlex
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from backports import zstd

from tests.http_api.conftest import COUNT
from tests.support.examples import SAMPLES, memories, memory
from tests.support.http_client import Answer, HttpServer, serving, spool_files
from tests.support.mcp_client import read_back, write_bundle
from tribal_mcp.portability.bundle.reader import BundleReader

GUIDE = Path(__file__).parents[3] / "shared" / "GUIDE.md"
PAGE = Path(__file__).parents[2] / "docs" / "http.md"


def ids_of(answer: Answer) -> set[str]:
    assert answer.status == 200, answer.body
    reader = BundleReader(BytesIO(answer.body))
    verified = reader.verify()
    assert str(verified.count) == answer.headers["tribal-memory-count"]
    assert verified.sha256 == answer.headers["tribal-sha256"]
    entries = [entry for batch in reader.batches() for entry in batch]
    return {str(entry.id) for entry in entries}


EVERYTHING = {memory(n).id for n in range(COUNT)}


def curl_lines(page: Path) -> list[list[str]]:
    """The curl commands of a page's bash and sh blocks, as words."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("curl ")]


def run(words: list[str], server: HttpServer, folder: Path) -> bytes:
    words = [word.replace("localhost:18790", f"localhost:{server.port}") for word in words]
    words[1:1] = ["--silent", "--show-error", "--fail-with-body"]
    done = subprocess.run(words, cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
@pytest.mark.parametrize("page", [GUIDE, PAGE], ids=["guide", "http.md"])
def test_the_documented_curl_commands_work(page: Path, tmp_path: Path) -> None:
    if not page.exists():
        pytest.skip("the page is not at hand")
    commands = curl_lines(page)
    assert len(commands) >= 2
    (tmp_path / "shared").mkdir()
    with serving(tmp_path, TRIBAL_SYNC_DIR=str(tmp_path / "shared")) as server:
        shutil.copy(SAMPLES / "hand5.inmemory.json", tmp_path / "backup.json")
        server.ask("POST", "/v1/import", (tmp_path / "backup.json").read_bytes())
        for words in commands:
            said = run(words, server, tmp_path)
            if "/v1/export" in " ".join(words) and "-o" not in words:
                BundleReader(BytesIO(said)).verify()
        assert server.ask("GET", "/v1/stats").json["count"] == 5


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
def test_curl_imports_an_exported_bundle_unchanged(server: HttpServer, tmp_path: Path) -> None:
    (tmp_path / "backup.json").write_bytes(server.ask("POST", "/v1/export").body)
    with serving(tmp_path) as other:
        line = "curl -X POST http://localhost:18790/v1/import -d @backup.json"
        result = json.loads(run(shlex.split(line), other, tmp_path))  # which strips the newlines
        assert (result["total"], result["imported"], result["vectors_kept"]) == (COUNT,) * 3
        again = other.ask("POST", "/v1/export").body
    ours = BundleReader(BytesIO((tmp_path / "backup.json").read_bytes())).verify()
    assert BundleReader(BytesIO(again)).verify().sha256 == ours.sha256


def test_filters_go_in_the_body_or_in_the_query(server: HttpServer) -> None:
    tag = memory(0).tags[0]
    tagged = {memory(n).id for n in range(COUNT) if tag in memory(n).tags}
    assert ids_of(server.ask("POST", "/v1/export")) == EVERYTHING
    assert ids_of(server.ask("POST", "/v1/export", {})) == EVERYTHING
    assert ids_of(server.ask("POST", "/v1/export", {"tags": [tag]})) == tagged
    assert ids_of(server.ask("POST", f"/v1/export?tags={tag}&tags=none")) == tagged
    assert not ids_of(server.ask("POST", "/v1/export?tags=none"))
    assert not ids_of(server.ask("POST", "/v1/export", {"tags": [tag], "date_to": "1970-01-01"}))


@pytest.mark.parametrize(
    ("headers", "kind", "encoding"),
    [
        ({}, "application/json", None),
        ({"Accept": "*/*"}, "application/json", None),
        ({"Accept": "application/x-ndjson"}, "application/x-ndjson", None),
        ({"Accept": "text/html, application/jsonl;q=0.5"}, "application/jsonl", None),
        ({"Accept": "application/json;q=0.1, application/gzip"}, "application/gzip", None),
        ({"Accept": "application/zstd"}, "application/zstd", None),
        ({"Accept_Encoding": "gzip, deflate"}, "application/json", "gzip"),
        ({"Accept_Encoding": "gzip;q=0.5, zstd"}, "application/json", "zstd"),
        ({"Accept_Encoding": "identity, gzip;q=0"}, "application/json", None),
        (
            {"Accept": "application/x-ndjson", "Accept_Encoding": "zstd"},
            "application/x-ndjson",
            "zstd",
        ),
    ],
    ids=str,
)
def test_export_respects_accept_headers_and_import_takes_every_format(
    server: HttpServer, headers: dict[str, str], kind: str, encoding: str | None
) -> None:
    answer = server.ask("POST", "/v1/export", **headers)
    assert answer.headers["content-type"] == kind
    assert answer.headers.get("content-encoding") == encoding
    assert ids_of(answer) == EVERYTHING
    plain = {"gzip": gzip.decompress, "zstd": zstd.decompress}
    packed = encoding or kind.partition("/")[2]
    text = plain.get(packed, bytes)(answer.body)
    first = text.split(b"\n", 1)[0]
    assert first.endswith(b"}" if kind.endswith(("ndjson", "jsonl")) else b",")

    back = {"Content_Type": kind} | ({"Content_Encoding": encoding} if encoding else {})
    result = server.ask("POST", "/v1/import", answer.body, **back)
    assert result.status == 200, result.body
    assert result.json["identical"] == COUNT


def test_import_options_go_in_the_query_or_around_the_bundle(tmp_path: Path) -> None:
    write_bundle(tmp_path / "here.json", memories(3))
    write_bundle(tmp_path / "there.json", [memory(n, content="Other") for n in range(4)])
    coming = json.loads((tmp_path / "there.json").read_text())
    with serving(tmp_path) as server:
        server.ask("POST", "/v1/import", (tmp_path / "here.json").read_bytes())

        def counts(answer: Answer) -> tuple[int, int, int, bool]:
            assert answer.status == 200, answer.body
            said = answer.json
            return said["imported"], said["overwritten"], said["skipped"], said["dry_run"]

        dry = "/v1/import?conflict_resolution=overwrite&dry_run=true"
        assert counts(server.ask("POST", dry, coming)) == (1, 3, 0, True)
        wrapped = {"bundle": coming, "conflict_resolution": "overwrite", "dry_run": True}
        assert counts(server.ask("POST", "/v1/import", wrapped)) == (1, 3, 0, True)
        packed = gzip.compress(json.dumps(wrapped).encode())
        sent = server.ask("POST", "/v1/import", packed, Content_Encoding="gzip")
        assert counts(sent) == (1, 3, 0, True)
        wrapped = {"conflict_resolution": "skip", "bundle": coming}
        assert counts(server.ask("POST", "/v1/import?dry_run=true", wrapped)) == (1, 0, 3, True)
        assert server.ask("GET", "/v1/stats").json["count"] == 3

        assert counts(server.ask("POST", "/v1/import", wrapped)) == (1, 0, 3, False)
        wrapped["conflict_resolution"] = "overwrite"
        assert counts(server.ask("POST", "/v1/import", wrapped)) == (0, 3, 1, False)
    assert {entry["content"] for entry in read_back(tmp_path).values()} == {"Other"}


def events_of(body: bytes) -> list[tuple[str, dict[str, object]]]:
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", body.decode())
    return [(name, json.loads(data)) for name, data in found]


def test_import_sends_progress_events(server: HttpServer, folder: Path) -> None:
    body = (folder / "many.json").read_bytes()
    answer = server.ask("POST", "/v1/import", body, Accept="text/event-stream")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    *progress, (last, result) = events_of(answer.body)
    assert {name for name, _ in progress} == {"progress"}
    percents = [float(str(said["percent"])) for _, said in progress]
    assert percents == sorted(set(percents))
    assert (last, result["identical"]) == ("result", COUNT)


def test_a_refusal_before_any_progress_has_its_status_with_events_too(
    server: HttpServer,
) -> None:
    answer = server.ask("POST", "/v1/import", b"<html>", Accept="text/event-stream")
    assert answer.problem == (422, "bundle_error")


def test_a_failure_after_the_first_event_is_an_event(server: HttpServer, folder: Path) -> None:
    lines = (folder / "many.json").read_bytes().replace(b"Memory", b"Memorx", 1)
    name, said = events_of(
        server.ask("POST", "/v1/import", lines, Accept="text/event-stream").body
    )[-1]
    assert (name, said["status"], said["code"]) == ("error", 422, "bundle_error")


def test_no_spool_file_remains_after_a_request(server: HttpServer, folder: Path) -> None:
    server.ask("POST", "/v1/export", Accept_Encoding="gzip")
    server.ask("POST", "/v1/import", b"nonsense")
    assert spool_files(folder) == []
    assert server.ask("GET", "/v1/stats").json["last_export"]["path"] == "over HTTP"


def test_spool_files_of_a_killed_server_are_removed_at_the_next_start(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert spool_files(tmp_path) == []
        place = tmp_path / "store" / "tribal-mcp" / "passing"
        (place / ".tribal-0123456789abcdef.part").write_bytes(b"half a bundle")
        (place / "not ours").touch()
        assert server.ask("GET", "/v1/health").json == {"status": "ok"}
        assert len(spool_files(tmp_path)) == 2
    with serving(tmp_path) as server:
        assert server.ask("GET", "/v1/health").json == {"status": "ok"}
        assert [path.name for path in spool_files(tmp_path)] == ["not ours"]


def test_a_body_over_its_limit_is_refused_whether_declared_or_counted(tmp_path: Path) -> None:
    with serving(tmp_path, TRIBAL_LIMIT_FILE_BYTES="100000") as server:
        declared = server.ask("POST", "/v1/import", b" " * 100_001)
        assert declared.problem == (413, "too_large")
        counted = server.ask("POST", "/v1/import", iter([b" " * 60_000] * 2))
        assert counted.problem == (413, "too_large")
        assert spool_files(tmp_path) == []


def test_health_reveals_only_whether_the_server_works(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        well = server.ask("GET", "/v1/health")
        assert (well.status, well.json) == (200, {"status": "ok"})
        store = tmp_path / "store"
        (store / "chroma.sqlite3").write_bytes(b"not a database" * 100)
        ill = server.ask("GET", "/v1/health")
        assert (ill.status, ill.json) == (503, {"status": "not ok"})
        assert server.ask("GET", "/v1/stats").problem[0] == 503


def test_a_file_of_another_system_is_imported(tmp_path: Path) -> None:
    body = b"[2026-01-14] - Likes tea.\n[unknown] - Works in Helsinki.\n"
    path = "/v1/import?add_tags=list&add_tags=old&instance=laptop"
    with serving(tmp_path) as server:
        preview = server.ask("POST", f"{path}&dry_run=true", body, Content_Type="text/plain")
        done = server.ask("POST", path, body, Content_Type="text/plain")
        stats = server.ask("GET", "/v1/stats").json
    assert preview.json["imported"] == done.json["imported"] == 2
    assert done.json["format"] == "dated-list"
    assert stats["tags"] == {"list": 2, "old": 2}


def test_an_export_in_another_format_is_the_file_itself(server: HttpServer) -> None:
    answer = server.ask("POST", "/v1/export?format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="memories.csv"'
    assert answer.body.count(b"\r\nmemory-") == COUNT
    back = server.ask("POST", "/v1/import", answer.body, Content_Type="text/csv").json
    assert (back["format"], back["identical"]) == ("csv", COUNT)


def test_a_dry_run_of_an_export_returns_what_would_be_lost(server: HttpServer) -> None:
    plan = server.ask("POST", "/v1/export", {"format": "csv", "dry_run": True}).json
    assert [(lost["what"], lost["memories"]) for lost in plan["lost"]] == [("its vector", COUNT)]
    assert plan["dry_run"]
    refused = server.ask("POST", "/v1/export", {"format": "nope"})
    assert refused.status == 400
    assert "These can be written" in refused.json["detail"]
    assert ids_of(server.ask("POST", "/v1/export", {"format": "bundle"})) == EVERYTHING
