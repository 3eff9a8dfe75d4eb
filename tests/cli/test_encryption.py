"""Bundles encrypted with age, as users write and read them."""

import zipfile
from pathlib import Path

import pytest

from tests.support.command_line import Tribal
from tests.support.http_client import serving

pytestmark = pytest.mark.slow


@pytest.fixture
def key(tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    ran = tribal("keygen", "key")
    assert ran.code == 0
    assert "age1" in ran.out
    monkeypatch.setenv("TRIBAL_AGE_IDENTITY", str(tmp_path / "key"))
    return tmp_path / "key"


def remember(tribal: Tribal, *texts: str) -> None:
    for text in texts:
        assert tribal("remember", text).code == 0


def plaintext_left(folder: Path, text: bytes) -> list[Path]:
    """Files other than those of the stores that contain a text."""
    files = (p for p in folder.rglob("*") if p.is_file() and "store" not in p.parts)
    return [path for path in files if text in path.read_bytes()]


@pytest.mark.usefixtures("key")
def test_an_encrypted_export_returns_and_leaves_no_plaintext(
    tribal: Tribal, tmp_path: Path
) -> None:
    remember(tribal, "the first memory", "the second memory")
    assert tribal("export", "m.json.age").code == 0
    imported = tribal("import", "m.json.age", "--data-dir", "store/other")
    assert imported.code == 0, imported.err
    assert "2 entries" in imported.out
    assert not plaintext_left(tmp_path, b"the first memory")


@pytest.mark.usefixtures("key")
def test_an_export_since_an_encrypted_bundle_has_only_what_is_new(tribal: Tribal) -> None:
    remember(tribal, "the first memory")
    tribal("export", "m.json.zst.age")
    remember(tribal, "the second memory")
    assert "Exported 1 memory" in tribal("export", "--since", "m.json.zst.age", "n.json.age").out


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no key", "Set TRIBAL_AGE_IDENTITY"),
        ("another key", "no key in TRIBAL_AGE_IDENTITY opens it"),
        ("a changed byte", "damaged or truncated"),
        ("a truncation", "damaged or truncated"),
    ],
)
def test_what_cannot_be_decrypted_changes_nothing(  # noqa: PLR0917 - fixtures
    tribal: Tribal,
    tmp_path: Path,
    key: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
    message: str,
) -> None:
    remember(tribal, "the first memory")
    tribal("export", "m.json.age")
    data = bytearray((tmp_path / "m.json.age").read_bytes())
    match damage:
        case "no key":
            monkeypatch.delenv("TRIBAL_AGE_IDENTITY")
        case "another key":
            key.unlink()
            tribal("keygen", "key")
        case "a changed byte":
            data[-30] ^= 1
        case _:
            del data[-30:]
    (tmp_path / "m.json.age").write_bytes(data)
    ran = tribal("import", "m.json.age", "--data-dir", "other")
    assert ran.code in {2, 3}
    assert message in ran.err
    assert "'m.json.age'" in ran.err
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("key")
def test_an_encrypted_bundle_is_only_overwritten_with_its_key(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(tribal, "the first memory")
    tribal("export", "m.json.age")
    assert tribal("export", "m.json.age", "--overwrite").code == 0
    before = (tmp_path / "m.json.age").read_bytes()
    tribal("keygen", "other")
    monkeypatch.setenv("TRIBAL_AGE_IDENTITY", str(tmp_path / "other"))
    refused = tribal("export", "m.json.age", "--overwrite")
    assert refused.code == 6
    assert "Refusing to overwrite what can't be read" in refused.err
    assert (tmp_path / "m.json.age").read_bytes() == before


def test_an_encrypted_name_without_a_key_writes_nothing(tribal: Tribal, tmp_path: Path) -> None:
    remember(tribal, "the first memory")
    ran = tribal("export", "m.json.age")
    assert ran.code == 2
    assert "TRIBAL_AGE_RECIPIENTS" in ran.err
    assert not (tmp_path / "m.json.age").exists()


def test_the_archive_of_another_system_may_be_encrypted(
    tribal: Tribal, tmp_path: Path, key: Path
) -> None:
    import pyrage  # noqa: PLC0415

    archive = tmp_path / "notes.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("CLAUDE.md", "# Rules\n\n- Always write tests first.\n")
    to = pyrage.x25519.Identity.from_str(key.read_text().splitlines()[-1]).to_public()
    pyrage.encrypt_file(str(archive), str(archive) + ".age", [to])
    ran = tribal("import", "notes.zip.age", "--dry-run")
    assert ran.code == 0, ran.err
    assert "Always write tests first" in ran.out


def test_an_encrypted_body_is_imported_over_http(tribal: Tribal, tmp_path: Path, key: Path) -> None:
    remember(tribal, "the first memory")
    tribal("export", "m.json.age")
    data = (tmp_path / "m.json.age").read_bytes()
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served", TRIBAL_AGE_IDENTITY=str(key)) as server:
        answer = server.ask("POST", "/v1/import", data)
        assert answer.status == 200, answer.body
        assert answer.json["imported"] == 1
