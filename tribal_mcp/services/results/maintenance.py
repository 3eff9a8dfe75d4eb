"""Results of use cases about the store as a whole."""

from pydantic import Field

from tribal_mcp.services.results import Part, Result


class FolderProblem(Part):
    """A problem of the store's folder."""

    kind: str
    message: str
    count: int = Field(description="memories or files that it affects")
    examples: list[str] = Field(description="the first of their ids or names")
    harmless: bool = Field(description="whether nothing is lost or wrong")


class CheckResult(Result):
    """What a check of the folder found, and what a repair did."""

    sound: bool = Field(description="whether nothing is lost or wrong now")
    problems: list[FolderProblem]
    done: list[str] = Field(description="what was repaired")
    notes: list[str] = Field([])
    next_step: str = ""


class RescueResult(Result):
    """A bundle with what was readable of a damaged folder."""

    memory_count: int
    output_path: str
    bytes: int
    lost_rows: int = Field(description="memories that could not be read")
    lost_vectors: int = Field(description="memories that were read without their vector")
    notes: list[str] = Field(description="what is damaged")
    next_step: str


class CopyResult(Result):
    """A copy of a store, or what it would do in a dry run."""

    source: str = Field(description="the source")
    target: str = Field(description="the target")
    total: int = Field(0, description="memories in the source")
    copied: int = Field(0, description="of them: not in the target before")
    replaced: int = Field(0, description="of them: in the target before, in another version")
    identical: int = Field(0, description="of them: in the target already")
    others: int = Field(0, description="memories that only the target has")
    written: int = Field(0, description="memories that this call wrote")
    forgotten: int = Field(0, description="tombstones")
    sha256: str = Field("", description="the checksum of both sides, in the order of the ids")
    restore_point: str = Field("", description="identifies the copy for undo in the target")
    dry_run: bool = False
    duration_ms: int = 0
    notes: list[str] = Field([])
    next_step: str = ""


class ReembedResult(Result):
    """New vectors, or what making them would take in a dry run."""

    model: str = Field(description="the model that makes the vectors")
    total: int = Field(0, description="memories to embed")
    embedded: int = Field(0, description="memories that this call embedded")
    failed: int = Field(0, description="memories whose text the model refused: without a vector")
    failures: list[str] = Field([], description="the first 100 of them, with the reason")
    about_seconds: float | None = Field(
        None, description="dry run: estimated duration, from a sample; null: unknown"
    )
    about_tokens: int | None = Field(
        None, description="dry run with a paid provider: estimated number of tokens"
    )
    dry_run: bool = False
    restore_point: str = Field("", description="identifies this for undo; empty: no change")
    duration_ms: int = 0
    notes: list[str] = Field([])
    next_step: str = Field("", description="what to do next")


class SetupResult(Result):
    """An embedding model on this machine."""

    model: str = Field(description="the model")
    folder: str = Field(description="where its files are")
    installed: bool = Field(description="whether this call put them there")
    ms_per_question: float = Field(description="how long embedding a question takes here")
    notes: list[str] = Field([])
    next_step: str = Field("", description="what to do next")


class FoundSource(Part):
    """Memories of another system on this machine."""

    system: str
    path: str
    format: str = Field("", description="the format of the import")
    count: int = Field(0, description="memories in it")
    imported: int = Field(0, description="of them: in this store already")
    newest: str = Field("", description="the newest date in it; empty: not known")
    problem: str = Field("", description="why it can't be read")


class DiscoverResult(Result):
    """The memories of other systems on this machine, at their usual places."""

    sources: list[FoundSource]
    notes: list[str] = Field([])
    next_step: str = ""
