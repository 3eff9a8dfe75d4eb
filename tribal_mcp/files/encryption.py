"""Files encrypted with age: written as a stream, and used only once all of them is authenticated.

`with encrypted(out, settings) as file:` gives a file to write to; the end of the block completes
the encryption into `out`, which stays open. `decrypt(file, into, settings, shown)` writes the whole
content, `plain` opens it, and `head_of_encrypted` returns its beginning. Memory use is constant.
The keys are those of the settings (see `age_keys`); no argument names one. pyrage encrypts to
recipients; what has a passphrase, which pyrage can't stream, is the part of `age_passphrase`.
"""

import base64
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, BinaryIO, cast

from tribal_mcp.config import Settings
from tribal_mcp.errors import BundleError, UsageError
from tribal_mcp.files.age_keys import (
    by_passphrase,
    check_keys,
    encrypts_to_recipients,
    identities,
    passphrase,
    pyrage,
    recipients,
)
from tribal_mcp.files.spool import Spool
from tribal_mcp.next_steps import NextStep
from tribal_mcp.text import counted

AGE = ".age"
"""What the name of an encrypted file ends with."""

_MAGIC = b"age-encryption.org/v1\n"
_ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"
_ARMOR_END = b"-----END AGE ENCRYPTED FILE-----"
_STANZA = re.compile(rb"^-> (\S+)", re.MULTILINE)
_HEAD_BYTES = 4096
_ARMORED_BYTES = 64 << 20
_BUFFER_BYTES = 1 << 18
_COPY_AGAIN = NextStep("Copy or download the file again.")


def is_encrypted(file: BinaryIO) -> bool:
    """Whether an open file begins as one of age does; it is at its start afterwards."""
    return bool(_kinds(file))


def has_passphrase(file: BinaryIO) -> bool:
    """Whether an open file is encrypted with a passphrase; it is at its start afterwards."""
    return _kinds(file) == ["scrypt"]


@contextmanager
def encrypted(out: BinaryIO, settings: Settings) -> Iterator[BinaryIO]:
    """A file that encrypts into `out`, which is complete at the end of the block.

    Raises:
        UsageError: as `check_keys`.
    """
    check_keys(settings)
    if encrypts_to_recipients(settings):
        raw: io.RawIOBase = _Encrypting(out, recipients(settings))
    else:
        raw = by_passphrase().Encrypting(out, passphrase(settings))
    file = io.BufferedWriter(raw, _BUFFER_BYTES)
    try:
        yield cast("BinaryIO", file)
    except BaseException:
        with suppress(Exception):
            file.close()
        raise
    file.close()


def decrypt(file: BinaryIO, into: BinaryIO, settings: Settings, shown: str) -> None:
    """Write the content of an encrypted file; what was written is of no use if this fails.

    Args:
        file: the encrypted file, open at its start.
        into: receives the content.
        settings: name the keys.
        shown: what messages call the file, as the subject of a sentence.

    Raises:
        UsageError: a key that it needs is not set or not valid, or the package is missing.
        BundleError: none of the keys fits, or the file is damaged or truncated.
    """
    kinds = _kinds(file)
    guarded = _Guarded(into)
    try:
        if kinds == ["scrypt"]:
            _decrypt_by_passphrase(file, guarded, settings, shown)
        else:
            _decrypt_by_key(file, guarded, settings, shown, counted(len(kinds), "recipient"))
    except _NotAuthentic:
        raise BundleError(
            f"{shown} is damaged or truncated: only the first {guarded.count:,} bytes of its "
            "content are authentic. Nothing of it was used.",
            _COPY_AGAIN,
        ) from None


def head_of_encrypted(file: BinaryIO, settings: Settings, shown: str, size: int) -> bytes:
    """The first bytes of the content; what follows is not authenticated. See `decrypt`."""
    head = _Head(size)
    with suppress(_Enough):
        decrypt(file, cast("BinaryIO", head), settings, shown)
    return bytes(head.content[:size])


def plain(file: BinaryIO, settings: Settings, spool: Spool, shown: str) -> BinaryIO:
    """An open file; or its content, in a spool file without a name, if it is encrypted.

    Raises:
        TribalError: as `decrypt`, or `NoSpace`; the file is closed then.
    """
    try:
        if not is_encrypted(file):
            return file
        with file, spool.scratch(elsewhere=True) as content:
            decrypt(file, content, settings, shown)
            content.flush()
            content.seek(0)
            return os.fdopen(os.dup(content.fileno()), "rb", _BUFFER_BYTES)
    except BaseException:
        file.close()
        raise


class NoKeyFits(BundleError):
    """The file is encrypted to other keys than those of the settings."""


class _NotAuthentic(Exception):
    """The rest of the content does not belong to the header."""


class _Enough(Exception):
    """The head of the content is complete."""


class _Head:
    """Receives the first bytes, then stops the decryption."""

    def __init__(self, size: int) -> None:
        self.content = bytearray()
        self._size = size

    def write(self, data: bytes) -> int:
        self.content += data
        if len(self.content) >= self._size:
            raise _Enough
        return len(data)


class _Guarded:
    """Keeps the exception of a read or write, of which pyrage passes on only the text."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = 0
        self.problem: BaseException | None = None

    def write(self, data: bytes) -> int:
        written = int(self._kept(self._file.write, data))
        self.count += written
        return written

    def read(self, size: int = -1) -> bytes:
        return bytes(self._kept(self._file.read, size))

    def flush(self) -> None:
        """Nothing: who opened the file flushes it."""

    def _kept(self, call: Callable[[Any], Any], argument: object) -> Any:  # noqa: ANN401 - as given
        try:
            return call(argument)
        except BaseException as error:
            self.problem = error
            raise


class _Encrypting(io.RawIOBase):
    """Passes what is written through a pipe to pyrage, which reads in a thread of its own."""

    def __init__(self, out: BinaryIO, to: Sequence[object]) -> None:
        reading, writing = os.pipe()
        self._pipe = os.fdopen(writing, "wb", 0)
        self._out = _Guarded(out)
        self._problem: BaseException | None = None
        self._thread = Thread(target=self._run, args=(reading, to), daemon=True)
        self._thread.start()

    def _run(self, reading: int, to: Sequence[object]) -> None:
        try:
            with os.fdopen(reading, "rb") as source:
                pyrage().encrypt_io(source, self._out, to)
        except BaseException as error:  # noqa: BLE001 - raised where the caller waits
            self._problem = self._out.problem or error

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - as RawIOBase takes it
        try:
            return self._pipe.write(data) or 0
        except BrokenPipeError:
            self.close()
            raise

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._pipe.close()
            self._thread.join()
            if self._problem:
                raise self._problem


def _decrypt_by_key(
    file: BinaryIO, into: _Guarded, settings: Settings, shown: str, to: str
) -> None:
    keys = identities(settings)
    if not keys:
        raise UsageError(
            f"{shown} is encrypted to {to}. Set TRIBAL_AGE_IDENTITY to the file with a key that "
            "opens it."
        )
    source = _Guarded(file)
    try:
        pyrage().decrypt_io(source, into, keys)
    except (pyrage().DecryptError, OSError) as error:
        if problem := into.problem or source.problem:
            raise problem from None
        if isinstance(error, OSError):
            raise _NotAuthentic from None
        if "No matching keys" in str(error):
            raise NoKeyFits(
                f"{shown} is encrypted to {to}, and no key in TRIBAL_AGE_IDENTITY opens it. "
                "Nothing of it was used. Set it to the file with the right key."
            ) from None
        raise BundleError(
            f"{shown} is damaged or truncated: its header is not valid. Nothing of it was used.",
            _COPY_AGAIN,
        ) from None


def _decrypt_by_passphrase(file: BinaryIO, into: _Guarded, settings: Settings, shown: str) -> None:
    secret = passphrase(settings)
    if not secret:
        raise UsageError(
            f"{shown} is encrypted with a passphrase. Set TRIBAL_AGE_PASSPHRASE_FILE to the file "
            "that contains it."
        )
    age = by_passphrase()
    try:
        for block in age.decrypted(_without_armor(file, shown), secret):
            into.write(block)
    except age.WrongPassphrase as error:
        raise BundleError(f"{shown} can't be decrypted: {error}. Nothing of it was used.") from None
    except age.Damaged:
        raise _NotAuthentic from None


def _without_armor(file: BinaryIO, shown: str) -> BinaryIO:
    if file.read(1) != _ARMOR[:1]:
        file.seek(0)
        return file
    file.seek(0)
    text = file.read(_ARMORED_BYTES + 1)
    if len(text) > _ARMORED_BYTES:
        raise BundleError(
            f"{shown} has a passphrase and more than {_ARMORED_BYTES >> 20} MiB of armored text, "
            "which is not supported. Encrypt it without armor."
        )
    _, *lines, end = text.strip().splitlines()
    try:
        return io.BytesIO(base64.b64decode(b"".join(lines) if end == _ARMOR_END else b"!"))
    except ValueError:
        raise _NotAuthentic from None


def _kinds(file: BinaryIO) -> list[str]:
    """What an age file is encrypted to, such as "X25519"; empty if it is none."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if head.startswith(_ARMOR):
        text = b"".join(head.splitlines()[1:]).partition(b"-")[0]
        with suppress(ValueError):
            head = base64.b64decode(text[: len(text) // 4 * 4])
    if not head.startswith(_MAGIC):
        return []
    found = _STANZA.findall(head.partition(b"\n---")[0])
    # Some programs add a random stanza, whose kind ends like this.
    kinds = [kind.decode(errors="replace") for kind in found if not kind.endswith(b"-grease")]
    return kinds or ["unknown"]
