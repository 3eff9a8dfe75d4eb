"""Request and response bodies, as the OpenAPI document shows them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from tribal_mcp.http_api.content import BODY_TYPES, EVENTS
from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy
from tribal_mcp.services.requests import Count, Embeddings, OnConflict, Request, Switch


def _as_bool(value: object) -> object:
    """A query is text; no text other than these two is interpreted as a boolean."""
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError("it must be true or false")
        return value == "true"
    if not isinstance(value, bool):
        raise ValueError("it must be true or false")  # noqa: TRY004 - pydantic's way
    return value


Flag = Annotated[bool, BeforeValidator(_as_bool)]


def _time(value: str) -> str:
    """Elsewhere `since` may also be the file name of a bundle; here no field names a file."""
    if value:
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("it must be an ISO 8601 time, such as 2026-01-31T18:00:00Z") from None
    return value


_RELATED = "also export what the memories refer to (supersedes, related_to), and so on"
_FORMAT = "another system's format to write, such as csv or mem0; by default, a bundle"
_DRY_RUN = "with a format: only return what it can't hold, as JSON"
_REPRODUCIBLE = "the same memories give the same bytes: dated by the newest of them"
_SECRETS = (
    "search for keys, tokens, passwords and private keys: report how many memories contain them, "
    "redact them, or refuse the export"
)
_PERSONAL_DATA = "also search for e-mail addresses, phone numbers, IBANs and card numbers"


class ExportFields(Request):
    """Which memories to export."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"tags": ["work"]}]})

    tags: list[str] = Field([], description="only memories with any of these tags")
    date_from: str = Field(
        "",
        description="only memories created at or after this time: ISO 8601, UTC by default",
        examples=["2026-01-15"],
    )
    date_to: str = Field(
        "",
        description="only memories created before this time; a date alone includes that day",
        examples=["2026-01-31"],
    )
    since: Annotated[str, AfterValidator(_time)] = Field(
        "",
        description="only what was added, changed or deleted in the store since this time",
        examples=["2026-01-31T18:00:00+00:00"],
    )
    include_related: Flag = Field(False, description=_RELATED)
    reproducible: Flag = Field(False, description=_REPRODUCIBLE)
    format: str = Field("", description=_FORMAT)
    dry_run: Flag = Field(False, description=_DRY_RUN)
    secrets: Literal["report", "redact", "refuse"] = Field("", description=_SECRETS)  # type: ignore[arg-type]  # not given
    personal_data: Flag = Field(False, description=_PERSONAL_DATA)


class ExportBody(ExportFields):
    """The same as JSON, where true and false are no text."""

    include_related: Switch = Field(False, description=_RELATED)
    reproducible: Switch = Field(False, description=_REPRODUCIBLE)
    dry_run: Switch = Field(False, description=_DRY_RUN)
    personal_data: Switch = Field(False, description=_PERSONAL_DATA)


class ImportOptions(Request):
    """How to import."""

    conflict_resolution: OnConflict = Field(
        ConflictResolution.SKIP,
        description="if a different memory with the same id exists: keep it, replace it, keep "
        "the one with the newer updated_at, store the bundle's under a new id, or refuse the "
        "import; mirror: make the store equal to the bundle. For a file of another system, the "
        "default is merge",
    )
    embedding_strategy: Embeddings = Field(
        ReembeddingStrategy.AUTO,
        description="vectors of the bundle: keep them if the models match, else drop them; keep "
        "them; drop them; or compute those that are missing or don't match",
    )
    dry_run: Flag = Field(False, description="only show what would happen; change nothing")
    strict: Flag = Field(False, description="refuse the whole bundle if any entry is invalid")
    restore_deleted: Flag = Field(
        False, description="also import memories that were deleted in the store"
    )
    skip_same_text: Flag = Field(
        False, description="leave out new memories whose text another memory already has"
    )
    secrets: Literal["report"] = Field(
        "",  # type: ignore[arg-type]  # not given
        description="report: search what is imported for secrets, and say where they are",
    )
    format: str = Field("", description="another system's format, if it is not recognised")
    mapping: list[str] = Field(
        [],
        description="for records in no known format: our field and theirs",
        examples=[["content=text", "created_at=date"]],
    )
    conversations: Flag = Field(False, description="also import the messages of conversations")
    add_tags: list[str] = Field([], description="tags for each memory")
    map_tags: list[str] = Field(
        [], description="tags to rename; an empty new name removes one", examples=[["old=new"]]
    )
    instance: str = Field("", description="the source_instance of each memory")
    mirror_deletions: Flag = Field(
        False,
        description="delete what was imported from this source before and is no longer there",
    )


class ReembedFields(Request):
    """Which vectors to compute."""

    all: Switch = Field(False, description="every memory, not only those without a vector")
    dry_run: Switch = Field(False, description="only show how many, how long and how many tokens")


class UndoFields(Request):
    """What to undo."""

    point: str = Field(
        "", description="the restore_point of the change; by default the newest that is not undone"
    )
    dry_run: Switch = Field(False, description="only show what would change")
    discard_later_edits: Switch = Field(
        False, description="also revert memories edited after the change; otherwise they stay"
    )


class SyncFields(Request):
    """How to sync. The folder is that of the server's setting."""

    name: str = Field("", description="the name of this machine; later syncs remember it")
    tags: list[str] = Field(
        [],
        description="share only memories with any of these tags; later syncs remember them. What "
        "else was shared before is deleted on the other machines, and stays here",
    )
    all: Switch = Field(False, description="share all memories again")
    encrypt: Switch = Field(
        False, description="encrypt with the age keys of the settings; later syncs remember it"
    )
    conflicts: Switch = Field(False, description="also list the conflicts")
    resolve: str = Field(
        "", description="the id of a memory in conflict, to resolve it: keep what is visible"
    )
    version: Count = Field(
        0, description="with resolve: take this version of the listed ones instead"
    )
    operations: Switch = Field(
        False, description="also list the imports and other operations of all machines"
    )
    withdraw: str = Field(
        "",
        description="one of them, to withdraw on all machines: delete what it added, restore what "
        "it changed. What was edited since stays",
    )
    accept_deletions: Switch = Field(
        False,
        description="delete on all machines what has disappeared here, even if it is most memories",
    )
    remove_machine: str = Field(
        "", description="the name or id of a machine that is no longer used: don't wait for it"
    )
    secrets: Literal["report", "refuse"] = Field(
        "",  # type: ignore[arg-type]  # not given
        description="search what is published for secrets: report which memories contain them, or "
        "publish nothing then",
    )
    dry_run: Switch = Field(False, description="only show what would happen; change nothing")


class Health(BaseModel):
    """Whether the server works."""

    status: Literal["ok", "not ok"]


_EXAMPLE = {
    "manifest": {
        "schema_version": "1.0",
        "embedding": {"model_name": "demo-model", "dimensions": 3, "provider": "made up"},
        "memory_count": 1,
        "exported_at": "2026-02-01T00:00:00+00:00",
    },
    "entries": [
        {
            "id": "8a5c0d6e",
            "content": "Prefers short answers.",
            "embedding": [0.5, 0.25, 1.0],
            "source_instance": "laptop",
            "source_type": "user_explicit",
            "created_at": "2026-01-15T10:30:00+00:00",
            "updated_at": "2026-01-15T10:30:00+00:00",
            "tags": ["preferences"],
            "context": None,
            "confidence": 1.0,
            "supersedes": None,
            "related_to": [],
        }
    ],
}

_BUNDLE = {
    "type": "object",
    "required": ["manifest", "entries"],
    "properties": {
        "manifest": {
            "type": "object",
            "description": "embedding model and count",
        },
        "entries": {
            "type": "array",
            "items": {"type": "object"},
            "description": "one memory each",
        },
        "integrity": {
            "type": ["object", "null"],
            "description": "count and checksums, verified on import",
        },
    },
    "description": "A bundle, as returned by POST /v1/export.",
}
_BYTES = {"type": "string", "format": "binary"}

EXPORTED: dict[str, Any] = {
    "description": "The bundle. Accept selects its format and Accept-Encoding its compression.",
    "content": {
        "application/json": {"schema": _BUNDLE, "example": _EXAMPLE},
        "application/x-ndjson": {"schema": _BYTES},
        "application/jsonl": {"schema": _BYTES},
        "application/gzip": {"schema": _BYTES},
        "application/zstd": {"schema": _BYTES},
    },
    "headers": {
        name: {"description": meaning, "schema": {"type": kind}}
        for name, kind, meaning in (
            ("Tribal-Memory-Count", "integer", "memories in the bundle"),
            ("Tribal-Sha256", "string", "checksum of its entries"),
            ("Tribal-Without-Vector", "integer", "memories without a vector"),
            ("Tribal-Dangling", "integer", "links to memories that are not in the bundle"),
        )
    },
}

_EVENTS = (
    "As text/event-stream: `progress` events, then `result` with the same content, or `error` with "
    "a problem."
)
IMPORTED: dict[str, Any] = {
    "description": f"What happened to the entries. {_EVENTS}",
    "content": {EVENTS: {"schema": {"type": "string"}}},
}
WITH_EVENTS: dict[str, Any] = {**IMPORTED, "description": f"What was done. {_EVENTS}"}

IMPORT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A bundle, an object with a `bundle` and the options of the query, or a "
        "file or archive of another system.",
        "content": {
            kind: {"schema": _BUNDLE, "example": _EXAMPLE}
            if kind == "application/json"
            else {"schema": _BYTES}
            for kind in BODY_TYPES
        },
    }
}

EXPORT_CURL = """\
curl -X POST http://localhost:18790/v1/export \\
  -H "Content-Type: application/json" -d '{"tags": ["work"]}' -o work.json"""
IMPORT_CURL = """\
curl -X POST "http://localhost:18790/v1/import?dry_run=true" \\
  -H "Content-Type: application/json" --data-binary @work.json"""
