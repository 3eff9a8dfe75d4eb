"""What each use case is asked, as every door asks it. Unknown arguments are refused."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    """No arguments."""

    model_config = ConfigDict(extra="forbid")


class ExportRequest(Request):
    """What to export, and where to."""

    tags: list[str] = []
    date_from: str = ""
    date_to: str = ""
    output_path: str = ""
    overwrite: bool = False
    compact_vectors: bool = False
    since: str = ""
    include_related: bool = False
    passing: str = ""
    """The file of the spool that gets the bundle; `output_path` is then only its name."""


class ImportRequest(Request):
    """What to import, and how."""

    input_path: str = ""
    bundle_json: str = ""
    conflict_resolution: Literal["skip", "overwrite", "merge", "keep_both", "fail"] = "skip"
    embedding_strategy: Literal["auto", "keep", "drop", "reembed"] = "auto"
    dry_run: bool = False
    strict: bool = False
    restore_deleted: bool = False
    write_plan: bool = False
    passing: str = ""
    """The file of the spool that holds the bundle, alone or wrapped."""


class UndoRequest(Request):
    """Which operation to take back."""

    point: str = ""
    dry_run: bool = False


class ReembedRequest(Request):
    """Which memories get a new vector: those without one, or all by the model that is set."""

    all: bool = False
    dry_run: bool = False


class CopyRequest(Request):
    """From where to where; empty is the store of the settings."""

    source: str = ""
    target: str = ""
    overwrite: bool = False
    dry_run: bool = False


class HistoryRequest(Request):
    """Which operations to list: all, or those that changed one memory."""

    memory_id: str = ""


class CheckRequest(Request):
    """Whether to mend what is found."""

    repair: bool = False


class RememberRequest(Request):
    """What to remember; without a source type it is a correction, or what the user said."""

    content: str = ""
    tags: list[str] = []
    context: str = ""
    source_type: Literal["", "user_explicit", "auto_capture", "correction", "cross_instance"] = ""
    confidence: float = 1.0
    supersedes: str = ""
    related_to: list[str] = []


class RecallRequest(Request):
    """What to find, and where to look."""

    query: str = ""
    count: int = 5
    tags: list[str] = []
    date_from: str = ""
    date_to: str = ""


class ForgetRequest(Request):
    """What to delete."""

    ids: list[str] = []
    dry_run: bool = False
