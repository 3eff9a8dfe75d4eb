"""All failures that a user can meet, each with its exit code and HTTP status.

TribalError
├── UsageError             2   400   An argument or a setting is wrong.
├── BundleError            3   422   The bundle is refused as a whole; nothing was written.
│   └── ImportConflict     3   409   The import was asked to fail on a conflict, and found one.
├── PartialImport          4   422   The import ended, and some entries, or all, were rejected.
├── StoreError             5   503   The store can't be used.
│   ├── StoreLocked        5   423   Another process has locked the store; the message names it.
│   ├── StoreMissing       5   404   There is no store where the settings point.
│   ├── StoreDamaged       5   503   The store's files are damaged or have an unknown layout.
│   └── SystemFailure      5   503   The disk fails, or the system can't open or read a file.
├── PathNotAllowed         6   403   The path is outside the allowed folders, or not a regular file.
├── NotPermitted           6   403   The caller has read-only access, and this is a change.
├── NoSpace                7   507   The disk is full.
├── EmbedderError          8   503   The embedding model is missing or fails.
├── SecretsFound           9   422   Memories contain secrets, and must not be shared.
└── Stopped              130   499   The user stopped the operation; the message says what was done.

docs/errors.md shows the same, generated from the classes. A message says what is wrong, where, and
what to do next, and shows no more of the file system than the caller gave. Any other exception is a
bug and keeps its traceback.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from tribal_mcp.next_steps import NextStep
from tribal_mcp.text import counted


class TribalError(Exception):
    """A failure that its user can understand and act on.

    Args:
        message: what is wrong and where, in terms that fit every interface.
        next_steps: what to do about it; each interface renders them after the message.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *next_steps: NextStep) -> None:
        super().__init__(message)
        self.next_steps = next_steps

    def extended(self, sentence: str, *next_steps: NextStep) -> Self:
        """The same failure with one more sentence, and with more next steps."""
        return type(self)(f"{self} {sentence}", *self.next_steps, *next_steps)


class UsageError(TribalError):
    """An argument or a setting is wrong."""

    exit_code = 2
    http_status = 400


class BundleError(TribalError):
    """The bundle is refused as a whole; nothing was written."""

    exit_code = 3
    http_status = 422


class ImportConflict(BundleError):
    """The import was asked to fail on a conflict, and found one."""

    http_status = 409


class EntryError(ValueError):
    """One entry can't be read; the message gives the field and the reason."""


class PartialImport(TribalError):
    """The import ended, and some entries, or all, were rejected."""

    exit_code = 4
    http_status = 422


class StoreError(TribalError):
    """The store can't be used."""

    exit_code = 5
    http_status = 503


class StoreLocked(StoreError):
    """Another process has locked the store; the message names it."""

    http_status = 423


class StoreMissing(StoreError):
    """There is no store where the settings point."""

    http_status = 404


class StoreDamaged(StoreError):
    """The store's files are damaged or have an unknown layout."""


class SystemFailure(StoreError):
    """The disk fails, or the system can't open or read a file."""


class PathNotAllowed(TribalError):
    """The path is outside the allowed folders, or not a regular file."""

    exit_code = 6
    http_status = 403


class NotPermitted(TribalError):
    """The caller has read-only access, and this is a change."""

    exit_code = 6
    http_status = 403


class NoSpace(TribalError):
    """The disk is full."""

    exit_code = 7
    http_status = 507


class EmbedderError(TribalError):
    """The embedding model is missing or fails."""

    exit_code = 8
    http_status = 503


class SecretsFound(TribalError):
    """Memories contain secrets, and must not be shared."""

    exit_code = 9
    http_status = 422


class Stopped(TribalError):
    """The user stopped the operation; the message says what was done."""

    exit_code = 130
    http_status = 499


_REASONS = {
    "missing": "a value is required",
    "extra_forbidden": "there is no such field",
    "greater_than": "it must be greater than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "literal_error": "it must be {expected}",
    "enum": "it must be {expected}",
    "int": "it must be a whole number",
    "float": "it must be a number",
    "finite": "it must be a finite number",
    "bool": "it must be true or false",
    "string": "it must be a string",
    "list": "it must be a list",
    "dict": "it must be an object",
    "model": "it must be an object",
    "date": "it must be an ISO 8601 date",
    "datetime": "it must be an ISO 8601 date",
    "path": "it must be a path",
    "json": "it must be valid JSON",
}


def invalid_value(problem: Mapping[str, Any]) -> str:
    """Why a value is not valid: a clause such as "it must be a whole number".

    Args:
        problem: an element of `pydantic.ValidationError.errors()`. Its own English text is not
            used; a `ValueError` of our validators keeps its message.
    """
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind == "string_too_short" and context["min_length"] == 1:
        return "it must not be empty"
    bound = context.get("min_length") if "short" in kind else context.get("max_length")
    if bound is not None:
        least = "at least" if "short" in kind else "at most"
        unit = "character" if kind.startswith("string") else "item"
        return f"it must have {least} {counted(bound, unit)}"
    reason = _REASONS.get(kind) or _REASONS.get(kind.partition("_")[0], "it is not a valid value")
    return reason.format_map(context)


def invalid_field(path: Sequence[str | int], problem: Mapping[str, Any]) -> str:
    """Why the value of a field is not valid: a sentence, such as "tags must be a list".

    Args:
        path: the names and indexes that lead to the field.
        problem: as for `invalid_value`.
    """
    first, *rest = path
    name = str(first) + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in rest)
    reason = invalid_value(problem)
    separator, reason = (" ", reason[3:]) if reason.startswith("it ") else (": ", reason)
    return f"{name:.80}{separator}{reason}."


def exit_codes() -> dict[int, str]:
    """The exit codes of the command, each with its meaning."""
    return {0: "Success.", 1: "A bug, with a traceback.", **_meanings("exit_code")}


def http_statuses() -> dict[int, str]:
    """The HTTP statuses of these errors, each with its meaning."""
    return _meanings("http_status")


def _meanings(attribute: str) -> dict[int, str]:
    """The first sentence of each class that sets the attribute itself."""
    found: dict[int, list[str]] = {}
    kinds = [kind for kind in globals().values() if isinstance(kind, type)]
    for kind in kinds:
        if issubclass(kind, TribalError) and kind is not TribalError and attribute in vars(kind):
            sentence = (kind.__doc__ or "").partition(";")[0].rstrip(".")
            found.setdefault(getattr(kind, attribute), []).append(f"{sentence}.")
    return {code: " ".join(sentences) for code, sentences in sorted(found.items())}
