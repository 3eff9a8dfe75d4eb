"""What is around a command: its working directory, and where its output goes."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.mcp_client import SERVER

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
