"""Every failure that a user can meet, each with its exit code and HTTP status.

TribalError
├── UsageError             2   400   an argument is wrong
├── BundleError            3   422   the bundle is refused, nothing was written
│   └── ImportConflict     3   409   it differs from what is here, and the caller wants no conflict
├── PartialImport          4   422   the import ended, and not one entry could be taken
├── StoreError             5   503   the store can't be used
│   ├── StoreLocked        5   423   another process holds it
│   └── StoreDamaged       5   503   its files are damaged or of an unknown layout
├── PathNotAllowed         6   403   a path is outside the allowed folders, or of a wrong kind
├── NotPermitted           6   403   the caller may only read
├── NoSpace                7   507   the disk is full
├── EmbedderError          8   503   an embedder is missing or fails
└── Stopped              130   499   the user stopped it; what was done is in the message

A message says what is wrong, where, and what to do next, and shows no more of the file system
than the caller gave. Anything that is not a TribalError is a bug and keeps its traceback.
"""

from typing import ClassVar, Self

from tribal_mcp.next_steps import NextStep


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
    """The bundle as a whole is refused; nothing was written."""

    exit_code = 3
    http_status = 422


class ImportConflict(BundleError):
    """The bundle differs from what is here, and the caller asked to be told instead."""

    http_status = 409


class EntryError(ValueError):
    """One entry can't be read; the message gives the field and the reason."""


class PartialImport(TribalError):
    """The import ran to its end and some entries, or all, were rejected."""

    exit_code = 4
    http_status = 422


class StoreError(TribalError):
    """The store can't be used."""

    exit_code = 5
    http_status = 503


class StoreLocked(StoreError):
    """Another process holds the store; the message names it."""

    http_status = 423


class StoreDamaged(StoreError):
    """The store's files are damaged or of a layout that is not known."""


class PathNotAllowed(TribalError):
    """A path lies outside the allowed folders or is of a wrong kind."""

    exit_code = 6
    http_status = 403


class NotPermitted(TribalError):
    """The caller may only read, and this would change something."""

    exit_code = 6
    http_status = 403


class NoSpace(TribalError):
    """The disk is full."""

    exit_code = 7
    http_status = 507


class EmbedderError(TribalError):
    """An embedder is missing or fails."""

    exit_code = 8
    http_status = 503


class Stopped(TribalError):
    """The user stopped the work after the batch in hand."""

    exit_code = 130
    http_status = 499
