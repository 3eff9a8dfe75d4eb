"""What each use case answers. Counts, paths and ids, never the text of a memory."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from tribal_mcp.next_steps import NextStep

DETAILS = 100
"""Errors that a summary spells out; the rest is a count."""


class Result(BaseModel):
    """What every use case answers with.

    `next_steps` is for callers in Python and for the interfaces, which render it into
    `next_step`; it is in no dump and in no schema.
    """

    next_steps: SkipJsonSchema[list[NextStep]] = Field(default_factory=list, exclude=True)
    if TYPE_CHECKING:  # each result declares these two in the place that the wire format has
        notes: list[str]
        next_step: str


class EmbeddingResult(BaseModel):
    """The model behind the vectors."""

    model_name: str
    dimensions: int
    provider: str


class ExportResult(Result):
    """An export that was made."""

    memory_count: int = Field(description="memories in the bundle")
    output_path: str = Field(description="the bundle")
    bytes: int = Field(description="its size")
    sha256: str = Field(description="hash over its entries")
    embedding: EmbeddingResult = Field(description="the model that made the vectors")
    filters: str = Field(description="what was taken, in words")
    truncated: bool = Field(description="whether a limit left memories out")
    without_vector: int = Field(description="memories that have no vector")
    dangling: int = Field(
        description="links (supersedes, related_to) to memories that are not in the bundle"
    )
    notes: list[str] = Field(description="what else to know")
    next_step: str = Field(description="what to do now")
    deleted: int = Field(description="tombstones in the bundle: memories that were forgotten")
    related: int = Field(description="memories taken only because others name them")
    exported_at: str = Field(description="when; give it as since to export what changes from now")


class ChangeResult(BaseModel):
    """What an import does with one entry, or with one tombstone."""

    id: str
    action: str = Field(description="insert, overwrite, skip, delete or reject")
    reason: str
    fields: list[str] = Field([], description="what differs from the memory here")
    here: str = Field("", description="first words of the memory here")
    bundle: str = Field("", description="first words of the bundle's")
    new_id: str = Field("", description="the id that it gets here, where that is another")


class ImportSummary(BaseModel):
    """An import, or in a dry run what it would be.

    Every entry of the bundle is in exactly one of `imported`, `skipped`, `overwritten` and
    `errors`; they sum to `total`.
    """

    total: int = Field(0, description="entries in the bundle")
    imported: int = Field(0, description="new memories")
    skipped: int = Field(0, description="entries left out because of a memory with their id")
    overwritten: int = Field(0, description="memories replaced")
    errors: int = Field(0, description="entries that could not be taken")
    needs_reembedding: bool = Field(
        False, description="whether memories without a vector came in: found by id, not by meaning"
    )
    dry_run: bool = Field(False, description="whether nothing was written")
    duration_ms: int = 0
    error_details: list[str] = Field([], description="the first 100 errors: place, id, reason")
    identical: int = Field(0, description="of the skipped: the same as the memory here")
    older: int = Field(0, description="of the skipped: older than the memory here")
    conflicts: int = Field(
        0, description="of the skipped: other content at the same updated_at; decide by hand"
    )
    forgotten: int = Field(
        0, description="of the skipped: forgotten here since; restore_deleted brings them back"
    )
    kept_both: int = Field(0, description="of the new: under a new id beside the memory here")
    brought_back: int = Field(0, description="of the new: forgotten here before")
    from_the_future: int = Field(
        0, description="entries with an updated_at more than a day ahead: they win every merge"
    )
    deletions: int = Field(0, description="memories that the bundle says were forgotten there")
    deleted: int = Field(0, description="of the deletions: memories forgotten here too, by them")
    dangling: int = Field(
        0,
        description="links (supersedes, related_to) to memories neither in the bundle nor here",
    )
    changes: list[ChangeResult] = Field([], description="of a dry run: the first 10 changes")
    restore_point: str = Field("", description="what tribal_undo takes back; empty: no change")
    vectors_kept: int = Field(0, description="of the new and replaced: with their vector")
    vectors_dropped: int = Field(0, description="of the new and replaced: vector dropped")
    vectors_reembedded: int = Field(0, description="of the new and replaced: vector made anew")
    vectors_failed: int = Field(0, description="entries whose text the model refuses")
    without_vector: int = Field(0, description="of the new and replaced: without a vector now")
    vectors_of_others: int = Field(
        0, description="of the kept vectors: made by another model than the store's"
    )
    notes: list[str] = Field([], description="what else to know")


class ImportResult(ImportSummary, Result):
    """An import as the doors report it."""

    plan_path: str = Field("", description="the file with what becomes of every entry, if asked")
    next_step: str = Field("", description="what to do now")


class UndoResult(Result):
    """An operation that was taken back, or in a dry run what that would be.

    Every memory that it changed is in exactly one of `removed`, `put_back`, `brought_back`,
    `forgotten` and `unchanged`.
    """

    point: str = Field(description="the restore point")
    operation: str = Field(description="what is taken back")
    source: str = Field(description="the bundle that was imported, or the point that was undone")
    removed: int = Field(0, description="memories that had come in: gone again")
    put_back: int = Field(0, description="memories that had been replaced: as before again")
    brought_back: int = Field(0, description="memories that had been removed: here again")
    forgotten: int = Field(0, description="memories that had come back: forgotten again")
    unchanged: int = Field(0, description="as before already")
    changed_since: int = Field(
        0, description="of those that change: changed by others after the operation"
    )
    dry_run: bool = False
    restore_point: str = Field("", description="what takes this back; empty: no change")
    duration_ms: int = 0
    notes: list[str] = []
    next_step: str = Field("", description="what to do now")


class HistoryEntry(BaseModel):
    """An operation that changed memories."""

    point: str = Field(description="its restore point")
    at: str = Field(description="when, in UTC")
    operation: str
    source: str = Field(description="the bundle that was imported, or the point that was undone")
    sha256: str = Field(description="hash over the bundle's entries")
    how: str = Field(description="its arguments")
    counts: dict[str, int] = Field(description="what it did")
    state: str = Field(description="complete, interrupted or undone")
    can_undo: bool = Field(description="whether what was before is still kept")


class HistoryResult(Result):
    """The operations that changed memories, the newest first."""

    operations: list[HistoryEntry]
    notes: list[str] = []
    next_step: str = ""


class LastExport(BaseModel):
    """The latest export of a collection."""

    at: str = Field(description="when, in UTC")
    path: str = Field(description="the bundle, or `over HTTP` for one that was an answer")
    memory_count: int = Field(description="memories in it")
    filters: str = Field(description="what was taken, in words")


class CopyResult(Result):
    """A store that was copied into another, or in a dry run what that would be."""

    source: str = Field(description="where the memories are")
    target: str = Field(description="where they go")
    total: int = Field(0, description="memories of the source")
    copied: int = Field(0, description="of them: not in the target before")
    replaced: int = Field(0, description="of them: in another version in the target before")
    identical: int = Field(0, description="of them: in the target already")
    others: int = Field(0, description="memories that only the target has")
    written: int = Field(0, description="memories that this call wrote")
    forgotten: int = Field(0, description="tombstones")
    sha256: str = Field("", description="the same over both sides, in the order of the ids")
    dry_run: bool = False
    duration_ms: int = 0
    notes: list[str] = []
    next_step: str = ""


class ReembedResult(Result):
    """Vectors that were made anew, or in a dry run what that would be."""

    model: str = Field(description="the model that makes the vectors")
    total: int = Field(0, description="memories in question")
    embedded: int = Field(0, description="memories that got a vector by this call")
    failed: int = Field(0, description="memories whose text the model refuses: without a vector")
    failures: list[str] = Field([], description="the first 100 of them, and why")
    about_seconds: float | None = Field(
        None, description="of a dry run: how long it may take, by a few of them; null: unknown"
    )
    about_tokens: int | None = Field(
        None, description="of a dry run with a paid provider: about how many tokens"
    )
    dry_run: bool = False
    restore_point: str = Field("", description="what takes a move to another model back")
    duration_ms: int = 0
    notes: list[str] = []
    next_step: str = Field("", description="what to do now")


class StatsResult(Result):
    """What is in the store."""

    data_dir: str = Field(description="the Chroma folder, or the server's address")
    collection: str
    count: int = Field(description="memories")
    without_vector: int = Field(description="of them without a vector: found by words only")
    forgotten: int = Field(0, description="deleted memories that are remembered as deleted")
    embedding: EmbeddingResult | None = Field(description="the model that made the vectors")
    other_models: dict[str, int] = Field(
        {}, description="vectors by model that other models made than that one"
    )
    tags: dict[str, int] = Field({}, description="memories by tag, the most frequent tags")
    other_tags: int = Field(0, description="how many tags there are besides those")
    sources: dict[str, int] = Field({}, description="memories by source type")
    months: dict[str, int] = Field(
        {}, description="memories by month of creation, the latest months; the rest is 'earlier'"
    )
    bytes: int | None = Field(None, description="size of the store's files; null if unknown")
    last_export: LastExport | None = Field(None, description="the latest export from here")
    notes: list[str]
    next_step: str


class ProblemResult(BaseModel):
    """Something in the folder that is not as it should be."""

    kind: str
    message: str
    count: int = Field(description="memories or files that it touches")
    examples: list[str] = Field(description="the first of their ids or names")
    harmless: bool = Field(description="whether nothing is lost or wrong")


class CheckResult(Result):
    """What a check of the folder found, and what a repair did."""

    sound: bool = Field(description="whether nothing is lost or wrong now")
    problems: list[ProblemResult]
    done: list[str] = Field(description="what was mended")
    notes: list[str] = []
    next_step: str = ""


class RescueResult(Result):
    """A bundle of what could be read of a damaged folder."""

    memory_count: int
    output_path: str
    bytes: int
    lost_rows: int = Field(description="memories that could not be read")
    lost_vectors: int = Field(description="memories that were read without their vector")
    notes: list[str] = Field(description="what is damaged")
    next_step: str


def after_export(count: int, filters: str, exported_at: str = "") -> str:
    """What to do after an export.

    Args:
        count: memories and tombstones in the bundle.
        filters: in words; empty where there are none.
        exported_at: when it was made, if it has only what changed.
    """
    if count:
        step = "Bring it into another store with tribal_import; try that with dry_run=true first."
        again = f' What changes from now on: tribal_export with since="{exported_at}".'
        return step + (again if exported_at else "")
    if exported_at:
        return f"Nothing changed: there are no {filters.removeprefix('all ')}."
    if filters:
        return f"Nothing matches ({filters}). Check the tags and the dates."
    return "The store is empty. Check TRIBAL_DATA_DIR and TRIBAL_COLLECTION."


def after_import(result: ImportResult) -> str:
    """What to do after an import."""
    if result.total and result.errors == result.total:
        return "No entry could be taken. Mend the bundle as error_details says."
    if result.dry_run:
        return "Nothing was written. Run it again with dry_run=false to do this."
    steps: list[str] = []
    if result.errors:
        steps.append("Mend the entries in error_details and import again; the rest is in.")
    if result.needs_reembedding:
        steps.append(
            f"{result.without_vector:,} memories have no vector: they are kept and exported, but "
            "no search by meaning finds them until they are embedded again (tribal_reembed)."
        )
    if result.conflicts:
        steps.append(
            f"{result.conflicts:,} memories have other content at the same updated_at; those here "
            "stayed. Decide by hand."
        )
    if result.forgotten:
        steps.append(
            f"{result.forgotten:,} were forgotten here since and stay so; restore_deleted=true "
            "brings them back."
        )
    kept = result.skipped - result.identical - result.older - result.conflicts - result.forgotten
    if kept:
        steps.append(
            f"{kept:,} memories here differ from the bundle's and stayed as they are; "
            '"merge" takes the newer ones, "overwrite" all.'
        )
    if result.restore_point:
        steps.append("tribal_undo takes it back.")
    return " ".join(steps) or "Nothing had to be done."
