"""Secrets over HTTP: searched for on request, and never in a response that is to have none."""

from pathlib import Path

from tests.support.examples import memories, memory
from tests.support.http_client import serving
from tests.support.mcp_client import write_bundle
from tests.support.secrets import made_up

[GITHUB] = (one.secret for one in made_up() if one.kind == "GitHub token")


def test_an_export_reports_redacts_and_refuses_and_an_import_reports(tmp_path: Path) -> None:
    write_bundle(tmp_path / "in.json", [memory(0, content=f"use {GITHUB}"), *memories(3)[1:]])
    with serving(tmp_path) as server:
        body = (tmp_path / "in.json").read_bytes()
        imported = server.ask("POST", "/v1/import?secrets=report", body)
        assert imported.json["secrets"] == {
            "memories": 1,
            "kinds": {"github-pat": 1},
            "first": [{"id": "memory-0", "kinds": ["github-pat"], "fields": ["content"]}],
        }
        plain = server.ask("POST", "/v1/export")
        assert "tribal-with-secrets" not in plain.headers
        reported = server.ask("POST", "/v1/export?secrets=report")
        assert reported.headers["tribal-with-secrets"] == "1"
        assert GITHUB.encode() in reported.body
        redacted = server.ask("POST", "/v1/export?secrets=redact")
        assert redacted.headers["tribal-with-secrets"] == "1"
        assert GITHUB.encode() not in redacted.body
        refused = server.ask("POST", "/v1/export?secrets=refuse&personal_data=true")
        assert (refused.status, refused.json["code"]) == (422, "secrets_found")
        assert "'memory-0' (github-pat in content)" in refused.json["detail"]
        assert GITHUB.encode() not in refused.body
        assert '"secrets": "redact", "personal_data": true' in refused.json["detail"]
        assert server.ask("POST", "/v1/export?secrets=maybe").status == 422
