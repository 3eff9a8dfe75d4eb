"""The commands backup and restore, as people and schedulers run them."""

import json
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Tribal

PAGE = (Path(__file__).parents[2] / "docs" / "backup.md").read_text()
COMMAND = Path(sys.executable).with_name("tribal-mcp")


@pytest.fixture
def backups(tribal: Tribal, tmp_path: Path) -> Path:
    tribal("remember", "the first memory")
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups"


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_quiet_prints_nothing_until_a_backup_is_damaged(tribal: Tribal, backups: Path) -> None:
    for _ in range(2):
        assert tribal("backup", "backups", "--quiet") == (0, "", "")
    assert tribal("backup", "backups", "--verify", "-q") == (0, "", "")
    (only,) = backups.iterdir()
    damage(only)
    said = tribal("backup", "backups", "--quiet")
    assert said.code == 0
    assert only.name in said.out
    assert tribal("backup", "backups", "--verify", "-q").code == 3


def test_what_was_done_is_said_in_a_few_lines(tribal: Tribal, backups: Path) -> None:
    first = tribal("backup", "backups")
    (only,) = backups.iterdir()
    assert first.out.splitlines()[0] == f"Backed up to backups/{only.name}"
    assert re.search(r"kind +full\n +contains +1 memory\n", first.out)
    assert "Nothing changed since the last backup" in tribal("backup", "backups").out
    listed = tribal("backup", "backups", "--list").out
    assert listed.startswith("1 backup in backups\n")
    assert re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ   full +1 memory   \d+ bytes", listed)
    assert "1 backup in backups, all of them good" in tribal("backup", "backups", "--verify").out


def test_the_time_in_the_list_restores_that_state(tribal: Tribal, backups: Path) -> None:
    tribal("backup", "backups")
    listed = json.loads(tribal("backup", "backups", "--list", "--json").out)
    tribal("remember", "a later memory")
    tribal("backup", "backups")
    at = listed["backups"][0]["at"]
    preview = tribal("restore", "backups", "--at", at, "--mirror", "--dry-run")
    assert f"Dry run: restoring the state of {at[:19]}Z" in preview.out
    assert f"`tribal-mcp restore backups --at {at} --mirror`" in preview.out
    done = tribal("restore", "backups", "--at", at, "--mirror")
    assert done.code == 0
    assert "1 of 1 memory" in tribal("list").out
    assert tribal("undo").code == 0
    assert "2 of 2 memories" in tribal("list").out
    assert len(list(backups.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("backup missing", 2, "Create it, or mount its disk"),
        ("backup backups --list --keep-last 3", 2, "they take no rule"),
        ("backup backups --keep-last -1", 2, "--keep-last"),
        ("restore missing", 2, "does not exist"),
        ("restore backups", 2, "has no backups of the collection 'memories'"),
        ("restore backups --at soon", 2, "'soon' is not an ISO 8601 date"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("backups")
def test_what_cannot_be_done_is_refused(
    tribal: Tribal, arguments: str, code: int, message: str
) -> None:
    ran = tribal(*arguments.split())
    assert ran.code == code
    assert message in ran.err
    assert not list(Path("backups").iterdir())


def test_a_missing_key_is_named_wherever_backups_are_read(
    tribal: Tribal, backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tribal("keygen", "key")
    monkeypatch.setenv("TRIBAL_AGE_IDENTITY", str(backups.with_name("key")))
    tribal("backup", "backups")
    monkeypatch.delenv("TRIBAL_AGE_IDENTITY")
    assert "1 of them can't be restored" in tribal("backup", "backups", "--list").out
    for command, code in (("backup", 2), ("restore", 3)):
        ran = tribal(command, "backups")
        assert ran.code == code
        assert "Set TRIBAL_AGE_IDENTITY" in ran.err


def scheduled() -> Iterator[tuple[str, str]]:
    """The commands of the page, by who runs them."""
    (cron,) = re.findall(r"^15 3 \* \* \*  (.+)$", PAGE, re.MULTILINE)
    yield "cron", cron
    (unit,) = re.findall(r"^ExecStart=(.+)$", PAGE, re.MULTILINE)
    (environment,) = re.findall(r"^Environment=(.+)$", PAGE, re.MULTILINE)
    yield "systemd", f"{environment} {unit}".replace("%h", "$HOME")
    (plist,) = re.findall(r"^<plist.+?</plist>$", PAGE, re.MULTILINE | re.DOTALL)
    yield "launchd", shlex.join(plistlib.loads(plist.encode())["ProgramArguments"])
    (hook,) = re.findall(r'^\{"hooks".+?\}\]\}\]\}\}$', PAGE, re.MULTILINE | re.DOTALL)
    (session,) = json.loads(hook)["hooks"]["SessionEnd"]
    yield "Claude Code", session["hooks"][0]["command"]
    (git,) = re.findall(r"post-commit`: `(.+?) &`", PAGE)
    yield "git", git


def run(home: Path, *command: str, path: str = "/usr/bin:/bin") -> None:
    environment = {"HOME": str(home), "PATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), command


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a user with a key and a memory."""
    home = tmp_path_factory.mktemp("home")
    (home / ".local" / "bin").mkdir(parents=True)
    (home / ".local" / "bin" / "tribal-mcp").symlink_to(COMMAND)
    run(home, str(COMMAND), "keygen", str(home / "tribal.key"))
    run(home, str(COMMAND), "remember", "a memory")
    return home


@pytest.mark.parametrize(
    ("who", "line"), list(scheduled()), ids=lambda value: value.partition(" ")[0]
)
def test_the_documented_schedulers_write_a_backup(home: Path, who: str, line: str) -> None:
    path = "/usr/bin:/bin"
    if who in {"Claude Code", "git"}:  # which run with the user's PATH
        path = f"{home}/.local/bin:{path}"
    shutil.rmtree(home / "backups", ignore_errors=True)
    (home / "backups").mkdir()
    run(home, "/bin/sh", "-c", line, path=path)
    (written,) = (home / "backups").iterdir()
    assert written.name.endswith(".age") == ("TRIBAL_AGE" in line)
