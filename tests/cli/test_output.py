"""The command line on a terminal: width, progress and Ctrl-C."""

import io
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.command_line import Ran, rows, write_bundle_with_an_invalid_entry
from tests.support.mcp_client import SERVER as COMMAND
from tests.support.mcp_client import write_many
from tribal_mcp import errors
from tribal_mcp.cli import output
from tribal_mcp.config import load
from tribal_mcp.services.context import Context
from tribal_mcp.services.jobs import run

# A child process inherits SIG_IGN, and the default in place of a handler.
HEARD, IGNORED = signal.default_int_handler, signal.SIG_IGN


@contextmanager
def ctrl_c(handler: Any) -> Iterator[None]:  # noqa: ANN401 - what signal.signal takes
    """Set what child processes inherit for Ctrl-C; the tests may run with it ignored."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def on_a_terminal(*arguments: str, folder: Path, stop_at: str = "", handler: Any = HEARD) -> Ran:  # noqa: ANN401 - see ctrl_c
    """Run it on a terminal of 80 columns; Ctrl-C as soon as it has printed `stop_at`."""
    ours, its = pty.openpty()
    ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {**os.environ, "TRIBAL_DATA_DIR": str(folder / "store"), "TERM": "xterm"}
    with ctrl_c(handler):
        process = subprocess.Popen(
            [COMMAND, *arguments], cwd=folder, env=env, stdin=its, stdout=its, stderr=its
        )
    os.close(its)
    printed = b""
    asked = False
    while True:
        try:
            printed += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if stop_at and not asked and stop_at.encode() in printed:
            process.send_signal(signal.SIGINT)
            asked = True
    os.close(ours)
    return Ran(process.wait(), printed.decode().replace("\r\n", "\n"), "")


def test_ctrl_c_stops_an_import_after_a_batch_and_repeating_it_completes_it(
    tmp_path: Path,
) -> None:
    write_many(tmp_path / "many.json", 4000)
    stopped = on_a_terminal("import", "many.json", folder=tmp_path, stop_at="Imported ")
    assert stopped.code == errors.Stopped.exit_code
    assert "Stopping after this batch" in stopped.out
    said = re.search(r"([\d,]+) of 4,000\s+entries\s+had\s+been\s+processed", stopped.out)
    assert said is not None
    done = int(said[1].replace(",", ""))
    assert 500 <= done < 4000

    again = on_a_terminal("import", "many.json", folder=tmp_path)
    assert again.code == 0
    shown = rows(again.out)
    assert shown["new"] == f"{4000 - done:,}"
    assert shown["skipped"].split() == [f"{done:,}", "identical"]


def test_ctrl_c_does_not_stop_a_background_job(tmp_path: Path) -> None:
    write_many(tmp_path / "many.json", 1500)
    options: dict[str, Any] = {"stop_at": "Imported ", "handler": IGNORED}
    done = on_a_terminal("import", "many.json", folder=tmp_path, **options)
    assert done.code == 0
    assert rows(done.out)["new"] == "1,500"


@pytest.mark.anyio
async def test_stopping_while_a_bundle_is_verified_takes_effect_at_once(tmp_path: Path) -> None:
    write_many(tmp_path / "many.json", 10)
    settings, limits = load()
    context = Context(settings, limits, stop=lambda: True, trusted=True)
    with pytest.raises(errors.Stopped, match="while verifying the bundle"):
        await run(context, "import", {"input_path": str(tmp_path / "many.json")})


def test_paragraphs_wrap_between_words_on_a_terminal(tmp_path: Path) -> None:
    write_bundle_with_an_invalid_entry(tmp_path / "bad.json")
    done = on_a_terminal("import", "bad.json", "--dry-run", folder=tmp_path)
    shown = done.out[done.out.rindex("Dry run:") :]
    assert max(map(len, shown.splitlines())) <= 80
    assert "Nothing was written." in " ".join(shown.split())


def test_a_file_with_an_unprintable_name_is_escaped_in_the_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr("rich.console.Console", lambda **_: terminal)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with output.Progress() as progress:
        progress(10.0, "Reading \x1b]0;evil\x07.zip")
    assert r"Reading \x1b]0;evil\x07.zip" in shown.getvalue()
    assert "\x1b]0;evil" not in shown.getvalue()
