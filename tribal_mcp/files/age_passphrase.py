"""age files with a passphrase as streams: the format age-encryption.org/v1 with one scrypt stanza.

All cryptography is that of the package `cryptography`; this module only arranges it as the
specification says. The work factor that is written needs 256 MiB of memory, as scrypt is meant to.
"""

import hmac
import io
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_BLOCK = 64 * 1024
_TAG = 16
_WORK = 18
_MOST_WORK = 20
"""Needs 1 GiB of memory."""
_ZERO_NONCE = bytes(12)
_HEADER = re.compile(
    rb"(age-encryption\.org/v1\n"
    rb"-> scrypt ([A-Za-z0-9+/]{22}) ([1-9][0-9]?)\n"
    rb"([A-Za-z0-9+/]{43})\n"
    rb"---) ([A-Za-z0-9+/]{43})\n"
)
_HEADER_BYTES = 512


class Damaged(Exception):
    """The file is damaged or truncated."""


class WrongPassphrase(Exception):
    """The passphrase does not open the file, or opening it would take too much."""


class Encrypting(io.RawIOBase):
    """Encrypts what is written into `out`; closing it completes the file."""

    def __init__(self, out: BinaryIO, passphrase: str) -> None:
        key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
        wrapped = ChaCha20Poly1305(_wrap_key(passphrase, salt, _WORK)).encrypt(
            _ZERO_NONCE, key, None
        )
        header = b"age-encryption.org/v1\n-> scrypt %b %d\n%b\n---" % (
            _base64(salt),
            _WORK,
            _base64(wrapped),
        )
        try:
            out.write(b"%b %b\n%b" % (header, _base64(_mac(key, header)), nonce))
        except BaseException:
            super().close()  # or deleting this would write the last block
            raise
        self._out = out
        self._cipher = ChaCha20Poly1305(_derived(key, nonce, b"payload"))
        self._count = 0
        self._rest = bytearray()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - as RawIOBase takes it
        """Encrypt bytes, all but the last incomplete block of which are written."""
        self._rest += data
        while len(self._rest) > _BLOCK:  # the last block is written by `close`
            self._write_block(self._rest[:_BLOCK], last=False)
            del self._rest[:_BLOCK]
        return len(data)

    def close(self) -> None:
        """Write the last block; `out` stays open."""
        if not self.closed:
            super().close()
            self._write_block(self._rest, last=True)

    def _write_block(self, data: bytearray, *, last: bool) -> None:
        self._out.write(self._cipher.encrypt(_nonce(self._count, last=last), data, None))
        self._count += 1


def decrypted(file: BinaryIO, passphrase: str) -> Iterator[bytes]:
    """The content of a file in blocks, each of which is authenticated; the last one tells the end.

    Raises:
        WrongPassphrase: the passphrase is wrong, or its work factor is too high.
        Damaged: the file is damaged or truncated.
    """
    header = _HEADER.match(file.read(_HEADER_BYTES))
    if header is None:
        raise Damaged("its header is not valid")
    work = int(header[3])
    if work > _MOST_WORK:
        raise WrongPassphrase(
            f"its work factor is {work}, and the highest supported one is {_MOST_WORK}"
        )
    try:
        key = ChaCha20Poly1305(_wrap_key(passphrase, _bytes(header[2]), work)).decrypt(
            _ZERO_NONCE, _bytes(header[4]), None
        )
    except InvalidTag:
        raise WrongPassphrase("the passphrase is wrong") from None
    if not hmac.compare_digest(_mac(key, header[1]), _bytes(header[5])):
        raise Damaged("its header is not valid")
    file.seek(header.end())
    cipher = ChaCha20Poly1305(_derived(key, file.read(16), b"payload"))
    block, count = file.read(_BLOCK + _TAG), 0
    while block:
        following = file.read(_BLOCK + _TAG)
        try:
            content = cipher.decrypt(_nonce(count, last=not following), block, None)
        except InvalidTag:
            raise Damaged("a block was changed, or the end is missing") from None
        if count and not content:
            raise Damaged("the last block is empty")
        yield content
        block, count = following, count + 1
    if not count:
        raise Damaged("the end is missing")


def _nonce(count: int, *, last: bool) -> bytes:
    return count.to_bytes(11, "big") + bytes([last])


def _wrap_key(passphrase: str, salt: bytes, work: int) -> bytes:
    salt = b"age-encryption.org/v1/scrypt" + salt
    return Scrypt(salt, length=32, n=1 << work, r=8, p=1).derive(passphrase.encode())


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=salt, info=info).derive(key)


def _mac(key: bytes, header: bytes) -> bytes:
    return hmac.digest(_derived(key, b"", b"header"), header, "sha256")


def _base64(data: bytes) -> bytes:
    return b64encode(data).rstrip(b"=")


def _bytes(text: bytes) -> bytes:
    data = b64decode(text + b"=" * (-len(text) % 4))
    if _base64(data) != text:
        raise Damaged("its header is not valid")
    return data
