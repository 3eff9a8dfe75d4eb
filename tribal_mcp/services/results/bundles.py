"""Results of exports, imports and other use cases about bundles."""

from pydantic import Field

from tribal_mcp.services.results import EmbeddingResult, Part, Result


class Lost(Part):
    """What another system's format can't hold."""

    what: str = Field(description="the part of a memory")
    memories: int = Field(description="of how many memories")
    examples: list[str] = Field(description="the ids of some of them")


class FoundSecrets(Part):
    """A memory with secrets; the secrets themselves are not shown."""

    id: str = Field(description="its id; a secret in it is masked")
    kinds: list[str] = Field(description="what was found, such as github-pat or password")
    fields: list[str] = Field(description="where: content, tags, context, metadata, …")


class SecretsResult(Part):
    """What a search for secrets found."""

    memories: int = Field(0, description="memories with secrets")
    kinds: dict[str, int] = Field({}, description="of them: by kind")
    first: list[FoundSecrets] = Field([], description="the first 20 of them")


class ExportResult(Result):
    """An export."""

    memory_count: int = Field(description="memories in the bundle")
    output_path: str = Field(description="the bundle")
    bytes: int = Field(description="its size")
    sha256: str = Field(description="hash of its entries")
    embedding: EmbeddingResult = Field(description="the model that made the vectors")
    filters: str = Field(description="the selection, in words")
    truncated: bool = Field(description="whether a limit left memories out")
    without_vector: int = Field(description="memories without a vector")
    dangling: int = Field(
        description="links (supersedes, related_to) to memories that are not in the bundle"
    )
    notes: list[str] = Field(description="further information")
    next_step: str = Field(description="what to do next")
    deleted: int = Field(description="tombstones in the bundle: memories that were deleted")
    related: int = Field(description="memories included only because others link to them")
    exported_at: str = Field(
        description="the time of the export; an export since this time has the later changes"
    )
    format: str = Field("", description="the other system's format; empty for a bundle")
    lost: list[Lost] = Field([], description="what that format can't hold, and is left out")
    dry_run: bool = Field(False, description="whether nothing was written")
    secrets: SecretsResult | None = Field(
        None, description="what the search for secrets found; null: none was requested"
    )


class ChangeResult(Part):
    """What an import does with one entry, or with one tombstone."""

    id: str
    action: str = Field(description="insert, overwrite, skip, delete or reject")
    reason: str
    fields: list[str] = Field([], description="the fields that differ from the stored memory")
    here: str = Field("", description="the beginning of the stored memory")
    bundle: str = Field("", description="the beginning of the bundle's memory")
    new_id: str = Field(
        "", description="the id in this store, if it gets a new one; or the memory with its text"
    )


class ImportSummary(Part):
    """An import, or what it would do in a dry run.

    Every entry of the bundle is in exactly one of `imported`, `skipped`, `overwritten` and
    `errors`; they sum to `total`.
    """

    total: int = Field(0, description="entries in the bundle")
    imported: int = Field(0, description="new memories")
    skipped: int = Field(0, description="entries not imported because of a memory with their id")
    overwritten: int = Field(0, description="memories replaced")
    errors: int = Field(0, description="entries rejected")
    needs_reembedding: bool = Field(
        False,
        description="whether memories without a vector were imported: semantic search does not "
        "find them",
    )
    dry_run: bool = Field(False, description="whether nothing was written")
    duration_ms: int = 0
    error_details: list[str] = Field([], description="the first 100 errors: place, id, reason")
    identical: int = Field(0, description="skipped: identical to the stored memory")
    older: int = Field(0, description="skipped: older than the stored memory")
    conflicts: int = Field(
        0, description="skipped: different content with the same updated_at; compare by hand"
    )
    forgotten: int = Field(
        0, description="skipped: deleted here since; restore_deleted restores them"
    )
    same_text_skipped: int = Field(
        0, description="skipped: another memory has the same text, and skip_same_text is set"
    )
    redacted: int = Field(
        0, description="skipped: redacted versions of stored memories, which stay complete"
    )
    same_text: int = Field(0, description="new, though another memory has the same text")
    kept_both: int = Field(0, description="new: added under a new id beside the stored memory")
    brought_back: int = Field(0, description="new: deleted here before, and restored")
    from_the_future: int = Field(
        0, description="entries with an updated_at more than a day ahead: they win every merge"
    )
    deletions: int = Field(0, description="tombstones in the bundle")
    deleted: int = Field(0, description="memories deleted here because of them")
    missing: int = Field(
        0, description="memories imported from this source before that it no longer has"
    )
    dangling: int = Field(
        0,
        description="links (supersedes, related_to) to memories neither in the bundle nor here",
    )
    changes: list[ChangeResult] = Field([], description="dry run: the first 10 changes")
    restore_point: str = Field("", description="identifies this import for undo; empty: no change")
    vectors_kept: int = Field(0, description="imported with the vector of the bundle")
    vectors_dropped: int = Field(0, description="imported without the vector of the bundle")
    vectors_reembedded: int = Field(0, description="imported with a new vector")
    vectors_failed: int = Field(0, description="entries whose text the model refused")
    without_vector: int = Field(0, description="imported without a vector")
    vectors_of_others: int = Field(0, description="kept vectors of other models than the store's")
    notes: list[str] = Field([], description="further information")
    secrets: SecretsResult | None = Field(
        None, description="secrets in what was imported; null: no search was requested"
    )


class ImportResult(ImportSummary, Result):
    """An import."""

    format: str = Field("", description="the source's format; empty: a bundle")
    found: int = Field(0, description="records in another system's source")
    left_out: int = Field(0, description="of them: not memories; notes say why")
    plan_path: str = Field("", description="the plan file, if requested: one line for each entry")
    next_step: str = Field("", description="what to do next")


class BundleFile(Part):
    """A bundle in an allowed folder."""

    path: str = Field(description="to name it in an import")
    bytes: int = Field(description="its size")
    modified: str = Field(description="when the file was written, in UTC")
    exported_at: str = Field(description="when it was exported; empty: not known")
    memory_count: int | None = Field(description="memories in it; null: it does not say")
    model_name: str = Field(description="the model of its vectors")


class BundlesResult(Result):
    """The bundles in the allowed folders, newest first."""

    bundles: list[BundleFile]
    other_files: int = Field(
        description="other .json and .jsonl files there: older, not bundles, or unreadable"
    )
    notes: list[str] = Field([])
    next_step: str = ""
