"""Proofs of who wrote a file that is encrypted to recipients, which age itself does not say.

From the writer's private and the reader's public key follows a secret, the same one as from the
reader's private and the writer's public key (X25519); nobody else can compute it. With the secret
for each recipient, the writer signs a digest of the content (HMAC). A reader accepts only writers
that it encrypts to itself. The cryptography is that of the package `cryptography`.
"""

import hmac
from collections.abc import Collection
from hashlib import sha512

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from tribal_mcp.config import Settings
from tribal_mcp.errors import UsageError
from tribal_mcp.files.age_keys import identity_lines, recipient_lines, recipients

_PURPOSE = b"tribal-mcp: proof of the writer, 1\n"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_CHECKSUM = 6
_FIELD = 2**255 - 19


def proofs(settings: Settings, digest: bytes) -> list[str]:
    """Prove to each recipient of the settings who wrote a content with this digest.

    Raises:
        UsageError: no identity is set, or a key can't be used for this.
    """
    own = _private_keys(settings)
    readers = _public_keys(settings, own)
    return sorted(
        {_proof(key, reader, _public(key), reader, digest) for key in own for reader in readers}
    )


def are_valid(settings: Settings, digest: bytes, given: Collection[str]) -> bool:
    """Whether proofs are of a recipient of the settings; raises as `proofs`."""
    own = _private_keys(settings)
    writers = _public_keys(settings, own)
    valid = {_proof(key, writer, writer, _public(key), digest) for key in own for writer in writers}
    return not valid.isdisjoint(given)


def _proof(own: X25519PrivateKey, other: bytes, writer: bytes, reader: bytes, digest: bytes) -> str:
    secret = own.exchange(X25519PublicKey.from_public_bytes(other))
    return hmac.digest(secret, _PURPOSE + writer + reader + digest, "sha256").hex()


def _private_keys(settings: Settings) -> list[X25519PrivateKey]:
    lines = identity_lines(settings)
    if not lines:
        raise UsageError(
            "Set TRIBAL_AGE_IDENTITY to the file with the key of this machine: without it, the "
            "others could not know who wrote its files, and it could not read theirs. Nothing was "
            "changed."
        )
    recipients(settings)  # raises if one is not valid
    if not lines[0].startswith("-----BEGIN"):
        return [X25519PrivateKey.from_private_bytes(_bech32(line)) for line in lines]
    try:
        key = load_ssh_private_key("\n".join([*lines, ""]).encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # age reads more kinds of files
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise _can_not_prove("The key in the file that TRIBAL_AGE_IDENTITY names")
    return [X25519PrivateKey.from_private_bytes(sha512(key.private_bytes_raw()).digest()[:32])]


def _public_keys(settings: Settings, own: Collection[X25519PrivateKey]) -> set[bytes]:
    return {*map(_public, own), *map(_recipient, recipient_lines(settings))}


def _public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _recipient(line: str) -> bytes:
    if not line.startswith("ssh-"):
        return _bech32(line)
    key = load_ssh_public_key(line.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise _can_not_prove(f"{line[:30]!r} in TRIBAL_AGE_RECIPIENTS")
    y = int.from_bytes(key.public_bytes_raw(), "little") & (2**255 - 1)
    return ((1 + y) * pow(1 - y, -1, _FIELD) % _FIELD).to_bytes(32, "little")


def _can_not_prove(which: str) -> UsageError:
    return UsageError(
        f"{which} is not of a kind that can prove which machine wrote a file. Nothing was changed. "
        "To sync, use age or ssh-ed25519 keys."
    )


def _bech32(line: str) -> bytes:
    """The 32 bytes of a key that age has already checked."""
    digits = line.strip().lower().rpartition("1")[2][:-_CHECKSUM]
    number = 0
    for digit in digits:
        number = number << 5 | _BECH32.index(digit)
    return (number >> len(digits) * 5 % 8).to_bytes(32, "big")
