"""Folders, archives and databases of other programs: what is read of them, and what never is."""

import io
import os
import sqlite3
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tribal_mcp.errors import BundleError, PathNotAllowed
from tribal_mcp.files.archives import ZipOrigin, origin_of_file
from tribal_mcp.files.bundle_folders import BundleFolders
from tribal_mcp.files.databases import database
from tribal_mcp.files.origins import FolderOrigin, Origin, head_of, text_of
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits


def folder_origin(path: Path) -> FolderOrigin:
    return FolderOrigin(path.parent, path, path.name, DEFAULT_LIMITS)


def archive(members: dict[str, bytes], limits: Limits = DEFAULT_LIMITS) -> ZipOrigin:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return ZipOrigin("x.zip", io.BytesIO(data.getvalue()), limits)


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    """A folder beside one that must not be read."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.md").write_text("secret")
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "a.md").write_text("a")
    (inside / "sub" / "b.md").write_text("b")
    return inside


def test_a_folder_lists_its_files_and_reads_them(opened: Path) -> None:
    origin = folder_origin(opened)
    assert list(origin.paths()) == ["a.md", "sub/b.md"]
    assert text_of(origin, "sub/b.md") == "b"


def test_links_pipes_and_hidden_files_in_a_folder_are_not_read(opened: Path) -> None:
    (opened / "file.md").symlink_to("../outside/secret.md")
    (opened / "folder").symlink_to("../outside")
    (opened / "sub" / "cycle").symlink_to("..")
    (opened / ".hidden.md").write_text("hidden")
    (opened / ".git").mkdir()
    (opened / ".git" / "config.md").write_text("git")
    os.mkfifo(opened / "pipe.md")
    origin = folder_origin(opened)
    assert list(origin.paths()) == ["a.md", "sub/b.md"]
    assert origin.notes == ["Not read in 'inside': links and special files: 4."]


def test_a_file_that_becomes_a_link_is_not_followed(opened: Path) -> None:
    origin = folder_origin(opened)
    (opened / "a.md").unlink()
    (opened / "a.md").symlink_to("../outside/secret.md")
    with pytest.raises(PathNotAllowed, match="symbolic link"):
        origin.open("a.md")
    (opened / "sub").rename(opened / "moved")
    (opened / "sub").symlink_to("../outside")
    with pytest.raises(PathNotAllowed):
        origin.open("sub/b.md")


def test_a_hard_link_into_a_folder_is_not_read(opened: Path) -> None:
    (opened / "hard.md").hardlink_to(opened.parent / "outside" / "secret.md")
    origin = folder_origin(opened)
    with pytest.raises(PathNotAllowed, match="other hard links"):
        origin.open("hard.md")


def test_names_in_either_form_of_unicode_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / unicodedata.normalize("NFD", "Zürich.md")).write_text("z")
    assert list(folder_origin(tmp_path / "x").paths()) == ["Zürich.md"]
    assert text_of(folder_origin(tmp_path / "x"), "Zürich.md") == "z"


def test_a_folder_is_opened_only_within_the_allowed_folders(opened: Path) -> None:
    folders = BundleFolders([opened], opened)
    with closing(folders.open_origin(f"{opened}/sub", DEFAULT_LIMITS)) as origin:
        assert list(origin.paths()) == ["b.md"]
    for path in (opened.parent / "outside", opened / ".." / "outside"):
        with pytest.raises(PathNotAllowed, match="outside the allowed folders"):
            folders.open_origin(str(path), DEFAULT_LIMITS)
    (opened / "link").symlink_to("../outside")
    with pytest.raises(PathNotAllowed, match="symbolic link"):
        folders.open_origin(f"{opened}/link", DEFAULT_LIMITS)


def test_members_that_lead_out_of_an_archive_are_not_read() -> None:
    link = zipfile.ZipInfo("link.md")
    link.external_attr = 0o120777 << 16
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for name in (
            "../up.md",
            "/etc/x.md",
            "a/../../up.md",
            "C:/x.md",
            "..\\up.md",
            "\x1b[2J.md",
        ):
            packed.writestr(name, "text")
        packed.writestr("good.md", "text")
        packed.writestr(link, "/etc/passwd")
    origin = ZipOrigin("x.zip", data, DEFAULT_LIMITS)
    assert list(origin.paths()) == ["good.md"]
    assert origin.notes == [
        "7 members were not read in 'x.zip': links, and names that lead out or can't be printed."
    ]


def test_a_folder_around_everything_and_what_systems_add_are_left_out() -> None:
    origin = archive({"export/a.json": b"1", "export/b/c.json": b"2", "__MACOSX/export/._a": b"x"})
    assert list(origin.paths()) == ["a.json", "b/c.json"]
    assert head_of(origin, "b/c.json") == b"2"


def test_names_of_members_are_utf_8_without_the_flag_too() -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        packed.writestr("Zürich.md", "z")
    raw = bytearray(data.getvalue())
    for at in (raw.index(b"PK\x03\x04") + 6, raw.index(b"PK\x01\x02") + 8):
        raw[at : at + 2] = b"\0\0"
    assert list(ZipOrigin("x.zip", io.BytesIO(bytes(raw)), DEFAULT_LIMITS).paths()) == ["Zürich.md"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused() -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        packed.writestr("a.md", "1")
        packed.writestr("a.md", "2")
    with pytest.raises(BundleError, match=r"has 'a.md' twice"):
        ZipOrigin("x.zip", data, DEFAULT_LIMITS)


def test_a_member_that_expands_out_of_proportion_is_refused() -> None:
    origin = archive({"bomb.json": bytes(64 << 20)})
    with pytest.raises(BundleError, match="expands to more than 200 times its size"):
        origin.open("bomb.json")


def test_an_archive_that_holds_too_much_is_refused() -> None:
    with pytest.raises(BundleError, match="holds more than 1,000 bytes"):
        archive({"a": bytes(1000), "b": bytes(1000)}, Limits(file_bytes=1000))


def test_a_damaged_member_is_reported() -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        packed.writestr("a.md", "text " * 100)
    raw = bytearray(data.getvalue())
    raw[raw.index(b"text ") + 7] ^= 1
    origin = ZipOrigin("x.zip", io.BytesIO(bytes(raw)), DEFAULT_LIMITS)
    with pytest.raises(BundleError, match=r"'a.md' in the archive is damaged: Bad CRC"):
        head_of(origin, "a.md")


def test_an_encrypted_member_is_reported() -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        packed.writestr("a.md", "text")
    raw = bytearray(data.getvalue())
    raw[raw.index(b"PK\x03\x04") + 6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    origin = ZipOrigin("x.zip", io.BytesIO(bytes(raw)), DEFAULT_LIMITS)
    with pytest.raises(BundleError, match=r"can't be read: .*encrypted"):
        origin.open("a.md")


def tar(members: Mapping[str, bytes | None], mode: str = "w:") -> io.BytesIO:
    """A tar archive; a member without content is a link to /etc/passwd."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as packed:  # type: ignore[call-overload]  # mode is a str
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(content)
            packed.addfile(info, io.BytesIO(content or b""))
    data.seek(0)
    return data


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_a_tar_archive_is_read_like_a_folder(mode: str) -> None:
    packed = tar({"x/a.md": b"a", "x/sub/b.md": b"b", "x/._a.md": b"junk"}, mode)
    origin = origin_of_file("x.tar", packed, DEFAULT_LIMITS)
    assert list(origin.paths()) == ["a.md", "sub/b.md"]
    assert text_of(origin, "sub/b.md") == "b"
    origin.close()


def test_links_and_names_that_lead_out_of_a_tar_archive_are_not_read() -> None:
    packed = tar({"a.md": b"a", "link.md": None, "../b.md": b"b", "/c.md": b"c"})
    origin = origin_of_file("x.tar", packed, DEFAULT_LIMITS)
    assert list(origin.paths()) == ["a.md"]
    assert "3 members were not read" in origin.notes[0]


def test_a_truncated_tar_archive_is_reported() -> None:
    whole = tar({"a.md": b"a" * 5_000}).getvalue()
    with pytest.raises(BundleError, match=r"'x.tar' is damaged: unexpected end of data"):
        origin_of_file("x.tar", io.BytesIO(whole[:3_000]), DEFAULT_LIMITS)


def test_a_tar_archive_that_holds_too_much_is_refused() -> None:
    limits = Limits(file_bytes=4_000)
    with pytest.raises(BundleError, match="TRIBAL_LIMIT_FILE_BYTES"):
        origin_of_file("x.tar", tar({"a.md": b"a" * 5_000}), limits)
    with pytest.raises(BundleError, match="TRIBAL_LIMIT_FILE_BYTES"):
        origin_of_file("x.tar", tar({"a.md": b"a" * 5_000}, "w:gz"), limits)


def test_a_text_is_read_whatever_its_encoding_and_line_ends(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "bom.md").write_bytes(b"\xef\xbb\xbfa\r\nb")
    (folder / "wide.md").write_bytes("a\nb".encode("utf-16"))
    (folder / "latin.md").write_bytes(b"\xe4")
    origin = folder_origin(folder)
    assert text_of(origin, "bom.md") == text_of(origin, "wide.md") == "a\nb"
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        text_of(origin, "latin.md")


def rows(origin: Origin, path: str, table: str) -> list[dict[str, object]]:
    with database(origin, path) as found:
        return list(found.rows(table))


@pytest.fixture
def memories(tmp_path: Path) -> Iterator[Path]:
    """The database of a running program, whose newest row is only in its `-wal` file."""
    path = tmp_path / "x" / "memories.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("PRAGMA journal_mode = WAL")
        sql.execute("CREATE TABLE memories (id TEXT, text TEXT)")
        sql.execute("INSERT INTO memories VALUES ('1', 'old')")
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sql.execute("INSERT INTO memories VALUES ('2', 'new')")
        yield path


def test_a_database_in_use_is_read_with_its_wal(memories: Path) -> None:
    folder = memories.parent
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    folders = BundleFolders.anywhere(folder)
    for path, name in ((memories, "memories.db"), (folder, "memories.db")):
        with closing(folders.open_origin(str(path), DEFAULT_LIMITS)) as origin:
            texts = [row["text"] for row in rows(origin, name, "memories")]
        assert texts == ["old", "new"]
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_views_and_triggers_of_a_database_never_run(tmp_path: Path) -> None:
    path = tmp_path / "x" / "evil.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as sql:
        sql.executescript(
            "CREATE TABLE real (id TEXT); INSERT INTO real VALUES ('1');"
            "CREATE VIEW memories AS WITH RECURSIVE n(i) AS"
            " (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n;"
            "CREATE TRIGGER t AFTER INSERT ON real BEGIN DELETE FROM real; END;"
        )
    with database(folder_origin(path.parent), "evil.db") as found:
        assert found.tables == {"real": ["id"]}
        with pytest.raises(KeyError):
            next(found.rows("memories"))


def test_a_damaged_database_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x" / "bad.db"
    path.parent.mkdir()
    path.write_bytes(b"SQLite format 3\0" + bytes(4096))
    with (
        pytest.raises(BundleError, match=r"'bad.db' can't be read"),
        database(folder_origin(path.parent), "bad.db"),
    ):
        pass
