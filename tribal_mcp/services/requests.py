"""The arguments of each use case, the same for every interface. Unknown ones are refused."""

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    model_validator,
)

from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy

Switch = Annotated[bool, Field(strict=True)]
"""True or false; no text or number that might mean one."""

Whole = Annotated[int, Field(strict=True)]
"""A whole number; no text or float that might mean one."""


Count = Annotated[int, Field(strict=True, ge=0)]
"""A whole number that is not negative."""


# As an enum, a schema would refer to a definition, and not every client follows a reference.
_listed = GetPydanticSchema(
    lambda choices, handler: handler.generate_schema(
        Annotated[
            Literal[tuple(choice.value for choice in choices)],
            AfterValidator(lambda value: choices(value)),  # noqa: PLW0108 - since 3.12 enums take several
        ]
    )
)
OnConflict = Annotated[ConflictResolution, _listed]
Embeddings = Annotated[ReembeddingStrategy, _listed]
OnSecrets = Literal["", "report", "redact", "refuse"]
"""As `Secrets`; empty: don't search for them."""
SourceType = Literal["", "user_explicit", "auto_capture", "correction", "cross_instance"]


class Request(BaseModel):
    """No arguments. Unknown ones are refused, and null means not given."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return {k: v for k, v in given.items() if v is not None or k not in cls.model_fields}


class ExportRequest(Request):
    """What to export, and where to."""

    tags: list[str] = []
    date_from: str = ""
    date_to: str = ""
    output_path: str = ""
    overwrite: Switch = False
    allow_smaller: Switch = False
    compact_vectors: Switch = False
    since: str = ""
    include_related: Switch = False
    reproducible: Switch = False
    format: str = ""
    """The name of another system's format; by default a bundle is written."""
    dry_run: Switch = False
    """With a format: count what it can't hold, and write nothing."""
    secrets: OnSecrets = ""
    personal_data: Switch = False
    """With `secrets`: e-mail addresses, phone numbers, IBANs and card numbers, too."""
    vectors: Switch = False
    """Also write the vectors, in a format that leaves that open."""
    spool_file: str = ""
    """The spool file to write the bundle to; `output_path` is then only its name."""


class ImportRequest(Request):
    """What to import, and how."""

    input_path: str = ""
    bundle_json: str = ""
    conflict_resolution: OnConflict = ConflictResolution.SKIP
    embedding_strategy: Embeddings = ReembeddingStrategy.AUTO
    dry_run: Switch = False
    strict: Switch = False
    restore_deleted: Switch = False
    skip_same_text: Switch = False
    secrets: Literal["", "report"] = ""
    """Whether to search what is imported for secrets."""
    write_plan: Switch = False
    format: str = ""
    """The name of the source's format; by default it is recognised."""
    mapping: list[str] = []
    """For records in no known format: a field of a memory, `=`, and the name of the source's."""
    conversations: Switch = False
    """Also import the messages of conversations, where the source has them."""
    add_tags: list[str] = []
    map_tags: list[str] = []
    """An old tag, `=`, and the new one; nothing after the `=` removes the tag."""
    instance: str = ""
    mirror_deletions: Switch = False
    """Delete memories imported from the same source before that it no longer has."""
    spool_file: str = ""
    """The spool file that holds the bundle, alone or wrapped with options."""


class BackupRequest(Request):
    """Where to back up to, and how many backups to keep; without a number every one is kept.

    With `list` or `verify` nothing is written: the backups there are listed, or read completely.
    """

    folder: str
    list: Switch = False
    verify: Switch = False
    keep_last: Count = 0
    keep_daily: Count = 0
    keep_weekly: Count = 0
    keep_monthly: Count = 0
    keep_yearly: Count = 0


class RestoreRequest(Request):
    """Which state to restore, by default the newest, and how."""

    folder: str
    at: str = ""
    mirror: Switch = False
    dry_run: Switch = False
    write_plan: Switch = False


class UndoRequest(Request):
    """Which operation to undo."""

    point: str = ""
    dry_run: Switch = False
    discard_later_edits: Switch = False


class ReembedRequest(Request):
    """Which memories to embed: those without a vector, or all with the configured model."""

    all: Switch = False
    dry_run: Switch = False


class SetupRequest(Request):
    """How to get the default embedding model, or the small one.

    Without a network, `archive` is the file of the default model, and `files` a folder with those
    of the small one.
    """

    archive: str = ""
    small: Switch = False
    files: str = ""


class CopyRequest(Request):
    """From where to where; the default is the store of the settings."""

    source: str = ""
    target: str = ""
    overwrite: Switch = False
    dry_run: Switch = False


class SyncRequest(Request):
    """Which folder to sync with, and how; a conflict to resolve, or an operation to withdraw.

    `version` is the number of the other version to take, or 0 to keep what is visible.
    """

    folder: str = ""
    name: str = ""
    tags: list[str] = []
    all: Switch = False
    """Share all memories again, whatever tags earlier calls named."""
    encrypt: Switch = False
    conflicts: Switch = False
    resolve: str = ""
    version: Count = 0
    operations: Switch = False
    withdraw: str = ""
    """The restore point of an operation on any of the machines."""
    accept_deletions: Switch = False
    remove_machine: str = ""
    """The name or id of another machine that is no longer used."""
    secrets: Literal["", "report", "refuse"] = ""
    """Whether to search what is published for secrets, and publish nothing if there are any."""
    dry_run: Switch = False


class HistoryRequest(Request):
    """Which operations to list: all, or those that changed one memory."""

    memory_id: str = ""


class CheckRequest(Request):
    """Whether to repair what is found."""

    repair: Switch = False


class RememberRequest(Request):
    """What to remember.

    The default source type is `correction` if the memory supersedes another, else `user_explicit`.
    """

    content: str = ""
    tags: list[str] = []
    context: str = ""
    source_type: SourceType = ""
    confidence: Annotated[float, Field(strict=True)] = 1.0
    supersedes: str = ""
    related_to: list[str] = []


class RecallRequest(Request):
    """What to find, and where to look; without a query, which page of the newest to list."""

    query: str = ""
    count: Whole = 5
    tags: list[str] = []
    date_from: str = ""
    date_to: str = ""
    page: Whole = 1


class ListRequest(Request):
    """Which memories to list, the newest first."""

    count: Whole = 20
    tags: list[str] = []
    date_from: str = ""
    date_to: str = ""
    page: Whole = 1


class ShowRequest(Request):
    """Which memory to show."""

    memory_id: str = ""


class ForgetRequest(Request):
    """What to delete."""

    ids: list[str] = []
    dry_run: Switch = False
