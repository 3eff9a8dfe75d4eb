"""Paths as a model or an attacker may write them: nothing outside the allowed folders changes."""

import os
import socket
from itertools import product
from pathlib import Path

import pytest

from tribal_mcp.errors import PathNotAllowed, TribalError, UsageError
from tribal_mcp.files.bundle_folders import BundleFolders

LIMIT = 1 << 20
CANARY = b'{"manifest": "a secret from outside"}'
INSIDE = b'{"manifest": "inside"}'

# {w} is the parent of the allowed folder {w}/allowed. Beside it are allowed-evil, outside and home.
# In the allowed folder: a.json, sub/a.json, .hidden/a.json, and links, see `world`.
UPS = (
    "..",
    "./..",
    "../.",
    "sub/../..",
    "sub/./../..",
    "none/../..",
    ".hidden/../..",
    "sub//..//..",
)
TARGETS = (
    "outside/secret.json",
    "outside/new.json",
    "outside/none/new.json",
    "allowed-evil/secret.json",
    "allowed-evil/new.jsonl.gz",
    "home/secret.json",
    "secret.json",
)
REFUSED = [
    *(f"{start}{up}/{target}" for start, up, target in product(("", "{w}/allowed/"), UPS, TARGETS)),
    *(f"{{w}}/{target}" for target in TARGETS),
    *(f"{{w}}//{target}" for target in TARGETS),
    *(f"/{{w}}/{target}" for target in TARGETS),
    *(f"/..{{w}}/{target}" for target in TARGETS),
    *(f"/proc/self/root{{w}}/{target}" for target in TARGETS),
    *(f"/proc/self/cwd/../{target}" for target in TARGETS),
    *(f"~/{name}" for name in ("secret.json", "new.json", "../outside/secret.json", ".ssh/a.json")),
    *("~root/new.json", "~no-such-user/new.json", "~", "~/", "~root", "~/../allowed-evil/new.json"),
    # links out of the folder: to a file, to folders, chains, circles, dangling
    *(f"link-{kind}.json" for kind in ("out", "chain", "dangling", "self", "inside", "zero")),
    *(f"{link}/{name}" for link in ("dir-out", "dir-chain", "dir-evil", "dir-up", "dir-proc")
      for name in ("secret.json", "new.json", "none/new.json", "../outside/secret.json")),
    *("dir-self/a.json", "dir-dangling/new.json", "dir-hidden/a.json", "dir-proc/../x.json"),
    *("dir-up/outside/secret.json", "dir-root/etc/new.json", "sub/dir-out/secret.json"),
    *("dir-inside/../../outside/secret.json", "a.json/../../outside/secret.json"),
    # not regular files
    *("hard.json", "fifo.json", "socket.json", "device.json", "folder.json", "folder.json/"),
    *("hard.json.gz", "sub/fifo.json", "link-fifo.json"),
    # hidden
    *(".env.json", ".json", ".jsonl.gz", ".hidden/a.json", "sub/.b.json", ".hidden/../.b.json"),
    *("...json", "..json", "....jsonl", ".../a.json", "{w}/allowed/.hidden/a.json"),
    # suffixes
    *(f"a{end}" for end in (
        "", ".txt", ".py", ".sh", ".json.py", ".json.exe", ".json ", ".json.", ".json\n", ".json~",
        ".json.bz2", ".jsonc", ".gz", ".zst", "json", "_json", ".json.gz.gz", ".js\u043en",
        ".j\u017fon", ".json\u200b", "\uff0ejson", ".json\u0301", ".json#", ".json?x=1", ".json;",
        ".json%00", ".bashrc", ".toml", ".md", ".JSON.SO", ".json:stream.txt",
    )),
    *("Makefile", "settings", "authorized_keys", ".git/config", ".bashrc", ".mcp/x.json"),
    # not paths
    *("", " ", ".", "..", "/", "//", "./", "../", "sub", "sub/", "sub/..", "sub/.", "\n", "\t"),
    *("\0", "a.json\0", "a\0.json", "\0a.json", "a.json\0.txt", "sub/\0/a.json"),
    *("{w}/outside/secret.json\0", "{w}/allowed/../outside/secret.json\0.json"),
    *("a\ud800.json", "\udfff/a.json", "\ud83d.json", "{w}/allowed/\udc00.json"),
    # missing folders, and lengths
    *("a.json/a.json", "a.json/", "none/new.json", "sub/none/new.json", "a.json/b/c.json"),
    *("x" * 250 + ".json.gz", "x" * 5_000 + ".json", "\u00e9" * 130 + ".json"),
    *("y" * 300 + "/a.json", "y/" * 1_000 + "a.json"),
    *("../" * 60 + "new.json", "../" * 3_000 + "new.json", "sub/../" * 3_000 + "a.json"),
    # devices and system files
    *(f"/dev/{name}" for name in ("zero", "null", "stdin", "fd/0", "tty", "mem", "full", "random")),
    *(f"/dev/fd/../{name}.json" for name in ("zero", "null")),
    *("/etc/passwd", "/etc/new.json", "/proc/self/environ", "/proc/self/mem", "/proc/1/fd/0"),
    *("/proc/1/cwd/new.json", "/proc/self/fd/new.json", "/proc/thread-self/cwd/../secret.json"),
    *("/sys/kernel/new.json", "/new.json", "/home/new.json", "/var/new.jsonl", "//etc/new.json"),
    # addresses are paths with odd names, in folders that do not exist
    *("file:///etc/new.json", "file://{w}/outside/secret.json", "http://127.0.0.1/a.json"),
    *("C:/Windows/new.json", "$HOME/secret.json", "${HOME}/secret.json", "`id`/a.json"),
    *("%2e%2e/outside/secret.json", "..%2foutside/secret.json", "%2e%2e%2f/secret.json"),
    *("\uff0e\uff0e/outside/secret.json", "\u2024\u2024/outside/secret.json", "\u2025/secret.json"),
    *("..\\..\\outside\\secret.json", "\\\\host\\share.json/a.json"),
    *("sub\\../../outside/secret.json", "..\\../secret.json", "\u200b../outside/secret.json"),
]  # fmt: skip

# Unusual, but within the allowed folder: read and written there under the name on the right.
ALLOWED = {
    "./a.json": "a.json",
    "a.json/.": "a.json",
    "sub/../a.json": "a.json",
    "sub//a.json": "sub/a.json",
    "{w}/allowed/a.json": "a.json",
    "{w}/allowed/sub/../../allowed/a.json": "a.json",
    "{w}/allowed-evil/../allowed/a.json": "a.json",
    "/{w}/allowed/./a.json": "a.json",
    "../allowed/a.json": "a.json",
    ".hidden/../a.json": "a.json",
    "none/../a.json": "a.json",
    "dir-inside/a.json": "sub/a.json",
    "dir-inside/../a.json": "a.json",
    "dir-back/a.json": "a.json",
    "~/../allowed/a.json": "a.json",
    "a..b.json": "a..b.json",
    "-rf.json": "-rf.json",
    "--.json": "--.json",
    "a b.json": "a b.json",
    "a\nb.json": "a\nb.json",
    "A.JSON.Gz": "A.JSON.Gz",
    "$HOME.json": "$HOME.json",
    "`id`.json": "`id`.json",
    "\uff0e\uff0e\uff0foutside.json": "\uff0e\uff0e\uff0foutside.json",
    "\u2215etc\u2215a.json": "\u2215etc\u2215a.json",
    "\u202enosj.json": "\u202enosj.json",
    "%2e%2e%2foutside.json": "%2e%2e%2foutside.json",
    "\udcff.json": "\udcff.json",
    "e\u0301.json": "e\u0301.json",
    "x" * 245 + ".json": "x" * 245 + ".json",
}


def build_world(w: Path) -> Path:
    """The allowed folder with its traps, and the folders beside it that must not be touched."""
    root = w / "allowed"
    for folder in ("sub", ".hidden", "folder.json", "../allowed-evil", "../outside", "../home"):
        (root / folder).mkdir(parents=True)
    for secret in ("outside", "allowed-evil", "home", "."):
        (w / secret / "secret.json").write_bytes(CANARY)
    for inside in ("a.json", "sub/a.json", ".hidden/a.json"):
        (root / inside).write_bytes(INSIDE)
    links: dict[str, Path | str] = {
        "link-out.json": w / "outside/secret.json",
        "link-chain.json": "link-out.json",
        "link-dangling.json": w / "outside/new.json",
        "link-self.json": "link-self.json",
        "link-inside.json": "a.json",
        "link-zero.json": "/dev/zero",
        "link-fifo.json": "fifo.json",
        "dir-out": "../outside",
        "dir-chain": "dir-out",
        "dir-evil": w / "allowed-evil",
        "dir-up": "..",
        "dir-proc": f"/proc/self/root{w}/outside",
        "dir-self": "dir-self",
        "dir-dangling": "none",
        "dir-hidden": ".hidden",
        "dir-root": "/",
        "dir-inside": "sub",
        "dir-back": root,
        "sub/dir-out": "../../outside",
    }
    for link, target in links.items():
        (root / link).symlink_to(target)
    (root / "hard.json").hardlink_to(w / "outside/secret.json")
    (root / "hard.json.gz").hardlink_to(w / "allowed-evil/secret.json")
    os.mkfifo(root / "fifo.json")
    os.mkfifo(root / "sub/fifo.json")
    with socket.socket(socket.AF_UNIX) as sock:
        here = Path.cwd()
        os.chdir(root)  # the full path may be too long for a socket
        sock.bind("socket.json")
        os.chdir(here)
    try:
        os.mknod(root / "device.json", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        os.mkfifo(root / "device.json")
    return w


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("shared").resolve())


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return build_world(tmp_path.resolve())


def enter(world: Path, monkeypatch: pytest.MonkeyPatch) -> BundleFolders:
    monkeypatch.chdir(world / "allowed")
    monkeypatch.setenv("HOME", str(world / "home"))
    return BundleFolders([world / "allowed"], world / "allowed")


def snapshot(folder: Path, *, without: str = "") -> dict[str, tuple[object, ...]]:
    """Names, kinds, contents, link counts and times of everything in a folder."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.iterdir()):
        if path.name != without:
            info = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            found[str(path)] = (info.st_mode, info.st_nlink, info.st_mtime_ns, content)
            if path.is_dir() and not path.is_symlink():
                found |= snapshot(path)
    return found


def is_bundle(_: object) -> bool:
    return True


def attempt(folders: BundleFolders, action: str, text: str) -> bytes:
    """Read a file, or open it for writing."""
    if action == "read":
        with folders.open_input(text, LIMIT) as file:
            return file.read(100)
    with folders.publish(text, overwrite=action == "overwrite", is_bundle=is_bundle):
        pytest.fail(f"{text!r} was opened for writing")


def test_the_corpus_is_large() -> None:
    assert len(set(REFUSED)) == len(REFUSED)
    assert len(REFUSED) + len(ALLOWED) >= 200


@pytest.mark.parametrize(
    "case", REFUSED, ids=[f"{n}-{case[:40]!a}" for n, case in enumerate(REFUSED)]
)
def test_a_path_outside_the_folder_or_of_a_wrong_kind_is_refused(
    shared_world: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    folders = enter(shared_world, monkeypatch)
    text = case.replace("{w}", str(shared_world))
    before = snapshot(shared_world)
    for action in ("read", "write", "overwrite"):
        with pytest.raises((PathNotAllowed, UsageError)) as caught:
            attempt(folders, action, text)
        assert str(shared_world) not in str(caught.value).replace(repr(text), "")
    assert snapshot(shared_world) == before


@pytest.mark.parametrize("case", ALLOWED, ids=lambda case: f"{case[:40]!a}")
def test_an_unusual_path_within_the_folder_is_allowed(
    world: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    folders = enter(world, monkeypatch)
    outside = snapshot(world, without="allowed")
    inside = snapshot(world / "allowed")
    text = case.replace("{w}", str(world))
    with folders.publish(text, overwrite=True, is_bundle=is_bundle) as draft:
        draft.write(b"written")
    assert draft.path == world / "allowed" / ALLOWED[case]
    assert draft.path.read_bytes() == attempt(folders, "read", text) == b"written"
    assert snapshot(world, without="allowed") == outside
    after = snapshot(world / "allowed")
    changed = {path for path in after | inside if after.get(path) != inside.get(path)}
    assert changed - {str(draft.path.parent)} == {str(draft.path)}


def test_a_very_long_chain_of_links_is_refused(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = enter(world, monkeypatch)
    (world / "allowed" / "chain-0").symlink_to("sub")
    for number in range(1, 1_200):
        (world / "allowed" / f"chain-{number}").symlink_to(f"chain-{number - 1}")
    for text in ("chain-1199/a.json", "none/../chain-40/a.json", "dir-self/a.json"):
        for action in ("read", "write"):
            with pytest.raises(PathNotAllowed, match="too many symbolic links"):
                attempt(folders, action, text)
    assert attempt(folders, "read", "chain-39/a.json") == attempt(folders, "read", "sub/a.json")


@pytest.mark.parametrize("case", ["link-dangling.json", "link-out.json", "hard.json", "fifo.json"])
def test_a_numbered_name_skips_names_that_are_taken(
    world: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    folders = enter(world, monkeypatch)
    before = snapshot(world, without="allowed")
    with folders.publish(case, overwrite=True, is_bundle=is_bundle, numbered=True) as draft:
        draft.write(b"written")
    assert draft.path == world / "allowed" / case.replace(".json", "-2.json")
    assert snapshot(world, without="allowed") == before


@pytest.mark.parametrize(
    "way", ["../{}", "{w}/{}", "dir-up/{}", "~/../{}", "dir-root/{w}/{}", "/proc/self/root{w}/{}"]
)
@pytest.mark.parametrize("missing", ["outside/new.json", "none/new.json", "outside/none/new.json"])
def test_a_refusal_does_not_reveal_whether_a_file_outside_exists(
    world: Path, monkeypatch: pytest.MonkeyPatch, way: str, missing: str
) -> None:
    folders = enter(world, monkeypatch)

    def refusal(target: str, action: str) -> str:
        text = way.replace("{w}", str(world)).format(target)
        with pytest.raises(TribalError) as caught:
            attempt(folders, action, text)
        return str(caught.value).replace(repr(text), "PATH")

    for action in ("read", "write", "overwrite"):
        assert refusal(missing, action) == refusal("outside/secret.json", action)
