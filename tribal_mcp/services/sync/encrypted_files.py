"""Encrypted files of the shared folder: their content, and who wrote it.

Who wrote a file with a passphrase knows it. Anybody can encrypt to recipients, so the content of
such a file ends with proofs (`age_proofs`) of the digest of the rest. They are in a frame that
programs skip when they decompress the content, and that ends with its size.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from tribal_mcp.config import Settings
from tribal_mcp.errors import EntryError
from tribal_mcp.files.age_keys import check_keys, encrypts_to_recipients, keys_in_words, proving
from tribal_mcp.files.encryption import NoKeyFits, encrypted, has_passphrase, is_encrypted
from tribal_mcp.services.context import Context

_BEGIN = struct.Struct("<II")
_END = struct.Struct("<I")
_SKIPPED = 0x184D2A50
_MOST_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 20


def check(settings: Settings) -> None:
    """Check that files can be encrypted, and that the keys prove who wrote them.

    Raises:
        UsageError: no key is set, one is not valid or can't be used, or a package is missing.
    """
    check_keys(settings)
    if encrypts_to_recipients(settings):
        proving().proofs(settings, b"")


def names_of_keys(settings: Settings) -> str:
    """A text that changes when files are to be encrypted otherwise than before."""
    return keys_in_words(settings) + "\nproofs" * encrypts_to_recipients(settings)


@contextmanager
def written(out: BinaryIO, settings: Settings) -> Iterator[BinaryIO]:
    """A file to write to, whose content is encrypted into `out`."""
    with encrypted(out, settings) as file:
        hashing = _Hashing(file)
        yield cast("BinaryIO", hashing)
        if encrypts_to_recipients(settings):
            given = "\n".join(proving().proofs(settings, hashing.digest.digest())).encode()
            file.write(_BEGIN.pack(_SKIPPED, len(given) + _END.size) + given)
            file.write(_END.pack(_BEGIN.size + len(given) + _END.size))


def opened(file: BinaryIO, context: Context, shown: str) -> BinaryIO:
    """The content of an open file, which is closed if this fails.

    Raises:
        EntryError: a machine that this one encrypts to has not written it.
        TribalError: it can't be decrypted.
    """
    try:
        if not is_encrypted(file):
            raise EntryError("is not encrypted")  # noqa: TRY301
        by_passphrase = has_passphrase(file)
    except BaseException:
        file.close()
        raise
    try:
        content = context.plain(file, shown)
    except NoKeyFits:
        raise EntryError(
            "is not encrypted to this machine: add the public key of this one to "
            "TRIBAL_AGE_RECIPIENTS on the machine that wrote the file, and sync there"
        ) from None
    try:
        if not by_passphrase:
            _check_writer(content, context.settings)
    except BaseException:
        content.close()
        raise
    return content


def _check_writer(content: BinaryIO, settings: Settings) -> None:
    """Check the proofs at the end of a file."""
    end = content.seek(0, os.SEEK_END)
    [size] = _END.unpack(_part(content, end - _END.size, end).rjust(_END.size))
    begin = end - size
    proof = _part(content, begin, end) if size <= min(end, _MOST_BYTES) else b""
    if not proof.startswith(_SKIPPED.to_bytes(4, "little")):
        raise EntryError(
            "does not prove who wrote it: an earlier version of this program did, or somebody who "
            "has no key. The next sync of its machine writes it again"
        )
    given = proof[_BEGIN.size : -_END.size].decode(errors="replace").split("\n")
    if not proving().are_valid(settings, _digest(content, begin), given):
        raise EntryError(
            "was not written by a machine that this one encrypts to: it is forged, or "
            "TRIBAL_AGE_RECIPIENTS lacks the public key of its machine"
        )


def _part(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(max(0, begin))
    return file.read(end - begin)


def _digest(file: BinaryIO, end: int) -> bytes:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(min(_BLOCK_BYTES, end - file.tell())):
        digest.update(block)
    return digest.digest()


class _Hashing:
    """Passes on what is written, and computes its digest."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)
