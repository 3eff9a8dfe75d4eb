"""Secrets on the command line: named by memory and kind, never shown."""

import json
import shlex
from pathlib import Path

from tests.support.command_line import Tribal
from tests.support.secrets import made_up

[GITHUB] = (one.secret for one in made_up() if one.kind == "GitHub token")


def test_secrets_are_reported_redacted_and_refused_with_an_exit_code_of_their_own(
    tribal: Tribal, tmp_path: Path
) -> None:
    stored = json.loads(tribal("remember", f"CI uses {GITHUB}", "--json").out)["id"]
    tribal("remember", "nothing to hide")
    where = f"secrets     {stored}: github-pat in content"
    reported = tribal("export", "reported.json", "--secrets", "report")
    assert where in reported.out
    assert "Note: 1 memory contains secrets (github-pat: 1)." in reported.out
    redacted = tribal("export", "redacted.json", "--secrets", "redact")
    assert where in redacted.out
    assert GITHUB not in (tmp_path / "redacted.json").read_text()
    refused = tribal("export", "refused.json", "--secrets", "refuse")
    assert (refused.code, refused.out) == (9, "")
    assert f"'{stored}' (github-pat in content)" in refused.err
    assert not (tmp_path / "refused.json").exists()
    for ran in (reported, redacted, refused):
        assert GITHUB not in ran.out + ran.err
    call = refused.err.partition("`")[2].partition("`")[0].replace("PATH", "again.json")
    assert tribal(*shlex.split(call)[1:]).code == 0
    none = tribal("export", "none.json", "--secrets", "report", "--to", "2020-01-01")
    assert "secrets     none found" in none.out


def test_a_redacted_bundle_comes_home_without_a_change(tribal: Tribal) -> None:
    tribal("remember", f"CI uses {GITHUB}")
    tribal("export", "redacted.json", "--secrets", "redact")
    ran = tribal("import", "redacted.json", "--on-conflict", "overwrite")
    assert "1   redacted" in ran.out
    assert "every entry is already here" in ran.out
    assert GITHUB in tribal("list").out


def test_an_import_reports_what_it_brings(tribal: Tribal, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text(
        f"id,content\n1,the mail password is kiwi-2048\n2,CI uses {GITHUB}\n3,a walk\n"
    )
    for arguments in (["--dry-run"], []):
        ran = tribal("import", "notes.csv", "--secrets", "report", *arguments)
        assert "2 memories contain secrets (github-pat: 1, password: 1)" in ran.out
        assert GITHUB not in ran.out
        assert "kiwi-2048" not in ran.out
