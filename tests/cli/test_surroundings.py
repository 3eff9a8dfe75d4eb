"""What is around a command: its working directory, and where its output goes."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.mcp_client import SERVER
from tribal_mcp.cli.text import printable_json

TIMEOUT_S = 120


def run(folder: Path, *words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "TRIBAL_DATA_DIR": str(folder.parent / "store")}
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": folder} | options
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [SERVER, *words], check=False, env=environment, timeout=TIMEOUT_S, **given
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.mark.parametrize("kind", ["bad settings", "a pipe"])
def test_an_env_file_in_the_working_directory_has_no_effect(kind: str, folder: Path) -> None:
    if kind == "a pipe":
        os.mkfifo(folder / ".env")
    else:
        (folder / ".env").write_text("chroma_server_http_port=many\nTRIBAL_COLLECTION=other\n")
    ran = run(folder, "remember", "Prefers short answers.")
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_full_disk_under_the_output_is_said_in_words(folder: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = run(folder, "stats", stdout=full)
    assert ran.returncode == 7
    assert ran.stderr.startswith(b"tribal-mcp: The output can't be written: no space left")
    assert b"Traceback" not in ran.stderr


def test_a_closed_output_is_said_before_anything_is_done(folder: Path) -> None:
    ran = run(folder, "remember", "Tea.", stdout=None, preexec_fn=lambda: os.close(1))
    assert ran.returncode == 2
    assert b"Standard output is closed" in ran.stderr
    assert not (folder.parent / "store").exists()


@pytest.mark.parametrize("command", ["remember", "stats", "check", "where", "serve"])
def test_a_data_folder_whose_path_is_not_utf_8_is_refused(command: str, folder: Path) -> None:
    words = {"remember": ["Tea."], "serve": ["--port", "0"]}.get(command, [])
    where = os.fsencode(folder.parent / "stor") + b"\xe9"
    environment = {**os.environb, b"TRIBAL_DATA_DIR": where}
    ran = subprocess.run(
        [SERVER, command, *words],
        check=False, env=environment, timeout=TIMEOUT_S, cwd=folder, capture_output=True,
    )  # fmt: skip
    assert ran.returncode == 2
    assert b"not UTF-8, so Chroma can't open it. Rename the folder" in ran.stderr
    assert not Path(os.fsdecode(where)).exists()


def test_a_bundle_whose_name_is_not_utf_8_is_written_and_read(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.json")
    assert run(folder, "remember", "Tea.").returncode == 0
    exported = run(folder, "export", name, "--json")
    assert (exported.returncode, exported.stderr) == (0, b"")
    assert json.loads(exported.stdout)["output_path"].endswith("caf\udce9.json")
    assert run(folder, "import", name, "--on-conflict", "overwrite").returncode == 0
    history = run(folder, "history", "--json")
    assert (history.returncode, history.stderr) == (0, b"")
    text = run(folder, "remember", os.fsdecode(b"caf\xe9"))
    assert (text.returncode, b"not UTF-8" in text.stderr) == (2, True)


def test_json_on_a_terminal_shows_hidden_characters_as_escapes() -> None:
    text = json.dumps({"a": "x\u202ey\x9b\u200b é"}, ensure_ascii=False, indent=2)
    shown = printable_json(text)
    assert json.loads(shown) == json.loads(text)
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert "é" in shown
