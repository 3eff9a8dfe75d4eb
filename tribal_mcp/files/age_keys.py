"""The keys of age, which the settings name: recipients, identities and a passphrase, from files."""

import os
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from tribal_mcp.config import Settings
from tribal_mcp.errors import UsageError
from tribal_mcp.files.failures import failure
from tribal_mcp.next_steps import NextStep

_KEY_FILE_BYTES = 1 << 16


def check_keys(settings: Settings) -> None:
    """Check that something can be encrypted.

    Raises:
        UsageError: no key is set, one is not valid, or the package is missing.
    """
    if encrypts_to_recipients(settings):
        recipients(settings)
    elif settings.age_passphrase_file:
        passphrase(settings)
        by_passphrase()
    else:
        raise UsageError(
            "Encryption is asked for, as an option or by a name that ends in .age, and no key is "
            "set. Nothing was changed. Set "
            "TRIBAL_AGE_RECIPIENTS, TRIBAL_AGE_IDENTITY or TRIBAL_AGE_PASSPHRASE_FILE.",
            NextStep("To create a key, run {call}.", "keygen", {"path": ...}),
        )


def encrypts_to_recipients(settings: Settings) -> bool:
    """Whether what is encrypted is so to recipients, and not with a passphrase."""
    return bool(settings.age_recipients or settings.age_identity)


def is_set(settings: Settings) -> bool:
    """Whether the settings name a key to encrypt with."""
    return bool(settings.age_recipients or settings.age_identity or settings.age_passphrase_file)


def recipients(settings: Settings) -> list[object]:
    """What to encrypt to: the recipients of the settings, else those of its identities.

    Raises:
        UsageError: one is not valid, or the package is missing.
    """
    if not settings.age_recipients:
        keys = identities(settings)
        if not all(hasattr(key, "to_public") for key in keys):
            raise UsageError(
                "TRIBAL_AGE_IDENTITY is an SSH key, which only decrypts. To encrypt, also set "
                "TRIBAL_AGE_RECIPIENTS, for example to the file with its public key."
            )
        return [cast("Any", key).to_public() for key in keys]
    age = pyrage()
    found: list[object] = []
    for line in recipient_lines(settings):
        kind = age.ssh if line.startswith("ssh-") else age.x25519
        try:
            found.append(kind.Recipient.from_str(line))
        except age.RecipientError as error:
            raise UsageError(
                f"TRIBAL_AGE_RECIPIENTS contains {line[:60]!r}, which is not a supported "
                f"recipient ({error}). Use age1… or ssh-ed25519 …, or a file of them."
            ) from None
    if not found:
        raise UsageError("TRIBAL_AGE_RECIPIENTS contains no recipient. Correct it, or unset it.")
    return found


def recipient_lines(settings: Settings) -> list[str]:
    """The recipients that the settings name, as text."""
    found: list[str] = []
    for part in _recipient_parts(settings):
        found += [part] if isinstance(part, str) else _lines(part, "TRIBAL_AGE_RECIPIENTS")
    return found


def recipient_files(settings: Settings) -> list[Path]:
    """The files of recipients that the settings name."""
    return [part for part in _recipient_parts(settings) if isinstance(part, Path)]


def _recipient_parts(settings: Settings) -> list[str | Path]:
    """Each recipient, or the file that names some."""
    return [
        part if part.startswith(("age1", "ssh-")) else Path(os.path.expanduser(part))  # noqa: PTH111 - the other one fails on unknown users
        for part in map(str.strip, settings.age_recipients.split(","))
        if part
    ]


def identity_lines(settings: Settings) -> list[str]:
    """The lines of the file of the identity; none if none is set."""
    path = settings.age_identity
    return [] if path is None else _lines(path, "TRIBAL_AGE_IDENTITY")


def identities(settings: Settings) -> list[object]:
    """What can decrypt: the keys in the file of the identity; none if none is set.

    Raises:
        UsageError: it has none or one that is not valid, or the package is missing.
    """
    if settings.age_identity is None:
        return []
    age = pyrage()
    lines = identity_lines(settings)
    try:
        if lines and lines[0].startswith("-----BEGIN"):
            return [age.ssh.Identity.from_buffer("\n".join([*lines, ""]).encode())]
        found = [age.x25519.Identity.from_str(line) for line in lines]
    except (age.IdentityError, ValueError) as error:
        raise UsageError(
            "The file that TRIBAL_AGE_IDENTITY names must contain age keys (AGE-SECRET-KEY-1…), or "
            f"an SSH private key without a passphrase ({error})."
        ) from None
    if not found:
        raise UsageError("The file that TRIBAL_AGE_IDENTITY names contains no key.")
    return found


def passphrase(settings: Settings) -> str:
    """The first line of the passphrase file; empty if none is set.

    Raises:
        UsageError: the file can't be read, or is empty.
    """
    if settings.age_passphrase_file is None:
        return ""
    lines = _lines(settings.age_passphrase_file, "TRIBAL_AGE_PASSPHRASE_FILE", comments=False)
    if not lines:
        raise UsageError("The file that TRIBAL_AGE_PASSPHRASE_FILE names is empty.")
    return lines[0]


def new_identity(path: Path) -> str:
    """Create a file with a new identity, readable only by its owner; returns its recipient.

    Raises:
        UsageError: the file exists, its folder does not, or the package is missing.
    """
    identity = pyrage().x25519.Identity.generate()
    recipient = str(identity.to_public())
    made = datetime.now(UTC).isoformat(timespec="seconds")
    text = f"# created: {made}\n# public key: {recipient}\n{identity}\n"
    shown = repr(str(path))
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise UsageError(
            f"{shown} already exists, and a key is never overwritten. Choose another path."
        ) from None
    except FileNotFoundError:
        raise UsageError(
            f"The folder of {shown} does not exist. Check the path, or create the folder."
        ) from None
    except OSError as error:
        raise failure(error, shown, "No key was made.") from error
    return recipient


def pyrage() -> ModuleType:
    """The package pyrage.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyrage  # noqa: PLC0415 - an extra, which only encrypted files need
    except ImportError:
        raise _missing_extra() from None
    return cast("ModuleType", pyrage)


def by_passphrase() -> Any:  # noqa: ANN401 - a module
    """The module `age_passphrase`; raises what `pyrage` does."""
    try:
        from tribal_mcp.files import age_passphrase  # noqa: PLC0415 - as above
    except ImportError:
        raise _missing_extra() from None
    return age_passphrase


def proving() -> Any:  # noqa: ANN401 - a module
    """The module `age_proofs`; raises what `pyrage` does."""
    try:
        from tribal_mcp.files import age_proofs  # noqa: PLC0415 - as above
    except ImportError:
        raise _missing_extra() from None
    return age_proofs


def _missing_extra() -> UsageError:
    return UsageError(
        "Files that are encrypted with age need the packages pyrage and cryptography. Install them "
        "where tribal-mcp is installed."
    )


def _lines(path: Path, variable: str, *, comments: bool = True) -> list[str]:
    """The lines of a key file that are not empty, and are not comments if it may have those."""
    shown = f"The file {str(path)!r:.200} (from {variable})"
    try:
        with path.open("rb") as file:
            text = file.read(_KEY_FILE_BYTES).decode()
    except FileNotFoundError:
        raise UsageError(f"{shown} does not exist. Correct the setting.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not text. Correct the setting.") from None
    except OSError as error:
        raise failure(error, shown, "Nothing was changed.") from error
    lines = [line for line in text.splitlines() if line.strip()]
    return [line for line in lines if not (comments and line.startswith("#"))]


def keys_in_words(settings: Settings) -> str:
    """A text that changes when other keys than before are to encrypt with; no secret is in it."""
    parts = [settings.age_recipients]
    files = [settings.age_identity, settings.age_passphrase_file]
    for part in (*settings.age_recipients.split(","), *map(os.fspath, filter(None, files))):
        path = Path(os.path.expanduser(part.strip()))  # noqa: PTH111 - as above
        if path.is_file():
            parts.append(f"{path} {path.stat().st_mtime_ns}")
    return "\n".join(parts)
