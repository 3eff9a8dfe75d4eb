"""Encryption with age: other programs read what is written, and no damage goes unnoticed."""

import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pyrage
import pytest

from tribal_mcp.config import Settings
from tribal_mcp.errors import BundleError, NoSpace, UsageError
from tribal_mcp.files import age_passphrase
from tribal_mcp.files.age_keys import new_identity
from tribal_mcp.files.encryption import decrypt, encrypted, head_of_encrypted, is_encrypted

BLOCK = 64 * 1024
Keys = Callable[[str], Settings]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """The settings for a kind of key."""
    monkeypatch.setattr(age_passphrase, "_WORK", 4)  # the real one takes a second and 256 MiB

    def made(kind: str) -> Settings:
        identity = tmp_path / f"{kind}.key"
        if kind == "passphrase":
            identity.write_text("correct horse battery staple\n")
            return Settings(age_passphrase_file=identity)
        if kind == "ssh":
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(identity)]
            subprocess.run(command, check=True)
            return Settings(age_identity=identity, age_recipients=f"{identity}.pub")
        new_identity(identity)
        return Settings(age_identity=identity)

    return made


def sealed(content: bytes, settings: Settings) -> bytes:
    out = BytesIO()
    with encrypted(out, settings) as file:
        for start in range(0, len(content), 50_000):
            file.write(content[start : start + 50_000])
    return out.getvalue()


def opened(data: bytes, settings: Settings) -> bytes:
    into = BytesIO()
    decrypt(BytesIO(data), into, settings, "'m.json.age'")
    return into.getvalue()


@pytest.mark.parametrize("kind", ["identity", "ssh", "passphrase"])
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_content_of_every_size_returns_with_every_kind_of_key(
    keys: Keys, kind: str, size: int
) -> None:
    settings, content = keys(kind), bytes(range(256)) * (size // 256 + 1)
    data = sealed(content[:size], settings)
    assert is_encrypted(BytesIO(data))
    assert opened(data, settings) == content[:size]


@pytest.mark.parametrize("size", [0, BLOCK, BLOCK + 1])
def test_age_reads_what_was_encrypted_with_a_passphrase(keys: Keys, size: int) -> None:
    settings = keys("passphrase")
    data = sealed(bytes(size), settings)
    assert pyrage.passphrase.decrypt(data, "correct horse battery staple") == bytes(size)


def test_every_recipient_can_read_the_file(tmp_path: Path) -> None:
    first, second = (new_identity(tmp_path / name) for name in "ab")
    (tmp_path / "others").write_text(f"# the second one\n{second}\n")
    data = sealed(b"text", Settings(age_recipients=f"{first}, {tmp_path / 'others'}"))
    for name in "ab":
        assert opened(data, Settings(age_identity=tmp_path / name)) == b"text"


@pytest.mark.parametrize("kind", ["identity", "passphrase"])
def test_armored_text_is_read(keys: Keys, kind: str) -> None:
    settings = keys(kind)
    content = bytes(2 * BLOCK + 1)
    if kind == "passphrase":
        text = pyrage.passphrase.encrypt(content, "correct horse battery staple", armored=True)
    else:
        assert settings.age_identity
        key = settings.age_identity.read_text().splitlines()[-1]
        to = pyrage.x25519.Identity.from_str(key).to_public()
        text = pyrage.encrypt(content, [to], armored=True)
    assert is_encrypted(BytesIO(text))
    assert opened(text, settings) == content
    with pytest.raises(BundleError, match="damaged or truncated"):
        opened(text[:-20], settings)


@pytest.mark.parametrize("kind", ["identity", "passphrase"])
def test_no_changed_byte_and_no_truncation_goes_unnoticed(keys: Keys, kind: str) -> None:
    settings = keys(kind)
    data = sealed(b"a memory", settings)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        for damaged in (bytes(changed), data[:place]):
            if is_encrypted(BytesIO(damaged)):
                with pytest.raises((BundleError, UsageError)):
                    opened(damaged, settings)
    with pytest.raises(BundleError, match="damaged or truncated"):
        opened(data + b"x", settings)


@pytest.mark.parametrize("kind", ["identity", "passphrase"])
def test_damage_names_how_much_is_authentic(keys: Keys, kind: str) -> None:
    settings = keys(kind)
    data = bytearray(sealed(bytes(3 * BLOCK), settings))
    data[-BLOCK] ^= 1
    with pytest.raises(BundleError, match=r"only the first (65,536|131,072) bytes"):
        opened(bytes(data), settings)
    assert head_of_encrypted(BytesIO(data), settings, "it", 1000) == bytes(1000)


def test_a_file_without_its_key_names_the_setting(keys: Keys, tmp_path: Path) -> None:
    data = sealed(b"text", keys("identity"))
    with pytest.raises(UsageError, match=r"encrypted to 1 recipient\. Set TRIBAL_AGE_IDENTITY"):
        opened(data, Settings())
    new_identity(tmp_path / "other")
    with pytest.raises(BundleError, match="no key in TRIBAL_AGE_IDENTITY opens it"):
        opened(data, Settings(age_identity=tmp_path / "other"))


def test_a_wrong_or_missing_passphrase_is_named(keys: Keys, tmp_path: Path) -> None:
    data = sealed(b"text", keys("passphrase"))
    with pytest.raises(UsageError, match="Set TRIBAL_AGE_PASSPHRASE_FILE"):
        opened(data, keys("identity"))
    (tmp_path / "wrong").write_text("something else")
    with pytest.raises(BundleError, match="the passphrase is wrong"):
        opened(data, Settings(age_passphrase_file=tmp_path / "wrong"))


def test_a_passphrase_that_would_exhaust_the_memory_is_refused(keys: Keys) -> None:
    settings = keys("passphrase")
    first, rest = sealed(b"text", settings).split(b" 4\n", 1)
    with pytest.raises(BundleError, match="its work factor is 30"):
        opened(first + b" 30\n" + rest, settings)


@pytest.mark.parametrize(
    ("content", "setting", "message"),
    [
        ("", "age_identity", "contains no key"),
        ("hello", "age_identity", "must contain age keys"),
        ("-----BEGIN RSA PRIVATE KEY-----\nx", "age_identity", "must contain age keys"),
        ("# only a comment", "age_recipients", "contains no recipient"),
        ("age1xyz", "age_recipients", "not a supported recipient"),
        ("", "age_passphrase_file", "is empty"),
        (None, "age_identity", "does not exist"),
        (None, "age_recipients", "does not exist"),
        (None, "age_passphrase_file", "does not exist"),
    ],
    ids=str,
)
def test_a_key_file_that_is_not_valid_is_explained(
    tmp_path: Path, content: str | None, setting: str, message: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message):
        sealed(b"text", Settings.model_validate({setting: str(path)}))


def test_a_full_disk_is_reported_as_such(keys: Keys) -> None:
    class Full(BytesIO):
        def write(self, _data: object, /) -> int:
            raise NoSpace("The disk is full.")

    for kind in ("identity", "passphrase"):
        settings = keys(kind)
        with pytest.raises(NoSpace), encrypted(Full(), settings) as file:
            file.write(bytes(20 * BLOCK))
        with pytest.raises(NoSpace):
            decrypt(BytesIO(sealed(b"text", settings)), Full(), settings, "it")


def test_a_new_key_is_private_and_never_overwritten(tmp_path: Path) -> None:
    recipient = new_identity(tmp_path / "key")
    before = (tmp_path / "key").read_text()
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert recipient in before
    with pytest.raises(UsageError, match="never overwritten"):
        new_identity(tmp_path / "key")
    assert (tmp_path / "key").read_text() == before
