"""What is sent to the HTTP door and what it answers, as the OpenAPI document shows it."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from tribal_mcp.http_api.content import BODY_TYPES, EVENTS


def _as_bool(value: object) -> object:
    """In an address all is text; no other text is guessed to be a yes or a no."""
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError("Write true or false")
        return value == "true"
    if not isinstance(value, bool):
        raise ValueError("Write true or false")  # noqa: TRY004 - pydantic's way
    return value


Flag = Annotated[bool, BeforeValidator(_as_bool)]


def _time(value: str) -> str:
    """An earlier bundle, which `since` may be elsewhere, is a file; nobody names files here."""
    if value:
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("Write a time in ISO 8601, such as 2026-01-31T18:00:00Z") from None
    return value


class ExportFields(BaseModel):
    """Which memories to export."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"tags": ["work"]}]})

    tags: list[str] = Field([], description="those with any of these tags; none takes all")
    date_from: str = Field(
        "",
        description="those created from here on: ISO 8601, UTC if unsaid",
        examples=["2026-01-15"],
    )
    date_to: str = Field(
        "",
        description="those created before this; a date alone includes its day",
        examples=["2026-01-31"],
    )
    since: Annotated[str, AfterValidator(_time)] = Field(
        "",
        description="only what came, changed or was forgotten in the store from this time on",
        examples=["2026-01-31T18:00:00+00:00"],
    )
    include_related: Flag = Field(
        False, description="take along what the memories name in supersedes and related_to"
    )


class ImportOptions(BaseModel):
    """How to import."""

    model_config = ConfigDict(extra="forbid")

    conflict_resolution: Literal["skip", "overwrite", "merge", "keep_both", "fail"] = Field(
        "skip",
        description="where an id is here already: keep the memory here, take the bundle's, take "
        "the one with the newer updated_at, add the bundle's under a new id, or refuse all",
    )
    embedding_strategy: Literal["auto", "keep", "drop", "reembed"] = Field(
        "auto",
        description="the bundle's vectors: keep them if the models match, in any case, never, or "
        "make those anew that don't match",
    )
    dry_run: Flag = Field(False, description="only say what would happen")
    strict: Flag = Field(False, description="refuse the whole bundle if one entry is bad")
    restore_deleted: Flag = Field(
        False, description="bring back memories that were forgotten in the store"
    )


class ReembedFields(BaseModel):
    """Which memories get a new vector."""

    model_config = ConfigDict(extra="forbid")

    all: Flag = Field(False, description="every memory, not only those without a vector")
    dry_run: Flag = Field(False, description="only say how many, how long and how many tokens")


class UndoFields(BaseModel):
    """What to take back."""

    model_config = ConfigDict(extra="forbid")

    point: str = Field("", description="the restore_point of an operation; the newest if unsaid")
    dry_run: Flag = Field(False, description="only say what would change")


class Health(BaseModel):
    """Whether the server can do its work."""

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
            "type": ["object", "null"],
            "description": "the model behind the vectors, the count",
        },
        "entries": {
            "type": "array",
            "items": {"type": "object"},
            "description": "one memory each; docs/bundle-format.md has the fields",
        },
        "integrity": {
            "type": ["object", "null"],
            "description": "count and hashes, checked on import",
        },
    },
    "description": "A bundle, as POST /v1/export answers with it.",
}
_BYTES = {"type": "string", "format": "binary"}

EXPORTED: dict[str, Any] = {
    "description": "The bundle. Accept chooses its form and Accept-Encoding its compression.",
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
            ("Tribal-Sha256", "string", "hash over its entries"),
            ("Tribal-Without-Vector", "integer", "memories that have no vector"),
            ("Tribal-Dangling", "integer", "links to memories that are not in the bundle"),
        )
    },
}

IMPORTED: dict[str, Any] = {
    "description": "What became of each entry. As text/event-stream: `progress` events, then "
    "`result` with the same, or `error` with a problem.",
    "content": {EVENTS: {"schema": {"type": "string"}}},
}

IMPORT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A bundle; or an object with a `bundle` and the options of the query.",
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
