"""Results of use cases about what is in the store, and what changed it."""

from pydantic import Field

from tribal_mcp.services.results import EmbeddingResult, Part, Result


class LastExport(Part):
    """The latest export of a collection."""

    at: str = Field(description="its time, in UTC")
    path: str = Field(description="the bundle, or `over HTTP` if it was a response")
    memory_count: int = Field(description="memories in it")
    filters: str = Field(description="the selection, in words")


class StatsResult(Result):
    """What is in the store."""

    data_dir: str = Field(description="the Chroma folder, or the server's address")
    collection: str
    count: int = Field(description="memories")
    without_vector: int = Field(
        description="memories without a vector: only keyword search finds them"
    )
    forgotten: int = Field(0, description="tombstones: memories that were deleted")
    embedding: EmbeddingResult | None = Field(description="the model that made the vectors")
    other_models: dict[str, int] = Field({}, description="vectors of other models, by model")
    tags: dict[str, int] = Field({}, description="memories by tag, the most frequent tags")
    other_tags: int = Field(0, description="number of tags besides those")
    sources: dict[str, int] = Field({}, description="memories by source type")
    months: dict[str, int] = Field(
        {}, description="memories by month of creation, the latest months; the rest is 'earlier'"
    )
    bytes: int | None = Field(None, description="size of the store's files; null if unknown")
    last_export: LastExport | None = Field(None, description="the latest export from here")
    notes: list[str]
    next_step: str


class SettingResult(Part):
    """A setting in effect."""

    variable: str
    value: str = Field(description="empty if there is none; a secret is only said to be set")
    source: str = Field(description="option, environment or default")


class WhereResult(Result):
    """The settings in effect."""

    location: str = Field(description="the Chroma folder, or the server's address")
    collection: str
    settings: list[SettingResult]
    notes: list[str] = Field([])
    next_step: str = ""


class UndoResult(Result):
    """An undone operation, or what undoing it would change in a dry run.

    Every memory that it changed is in exactly one of `removed`, `put_back`, `brought_back`,
    `forgotten`, `unchanged` and `kept_edits`.
    """

    point: str = Field(description="the restore point")
    operation: str = Field(description="the undone operation")
    source: str = Field(description="the imported bundle, or the restore point that was undone")
    removed: int = Field(0, description="memories that it had added: removed")
    put_back: int = Field(0, description="memories that it had replaced: restored")
    brought_back: int = Field(0, description="memories that it had deleted: restored")
    forgotten: int = Field(0, description="memories that it had restored: deleted again")
    unchanged: int = Field(0, description="memories already as before")
    changed_since: int = Field(0, description="memories changed after the operation")
    kept_edits: int = Field(0, description="of them: left as they are now")
    already_undone: bool = Field(False, description="whether it was undone before: no change")
    dry_run: bool = False
    restore_point: str = Field("", description="identifies this undo for undo; empty: no change")
    duration_ms: int = 0
    notes: list[str] = Field([])
    next_step: str = Field("", description="what to do next")


class HistoryEntry(Part):
    """An operation that changed memories."""

    point: str = Field(description="its restore point")
    at: str = Field(description="its time, in UTC")
    local_time: str = Field("", description="the same in the local time zone")
    operation: str
    source: str = Field(description="the imported bundle, or the restore point that was undone")
    sha256: str = Field(description="hash of the bundle's entries")
    how: str = Field(description="its arguments")
    counts: dict[str, int] = Field(description="what it changed")
    state: str = Field(description="complete, interrupted or undone")
    can_undo: bool = Field(
        description="whether the earlier versions are still kept; those before a repair never are"
    )
    bytes: int = Field(0, description="size of what is kept to undo it")


class HistoryResult(Result):
    """The operations that changed memories, newest first."""

    operations: list[HistoryEntry]
    notes: list[str] = Field([])
    next_step: str = ""
