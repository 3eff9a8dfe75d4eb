"""The result of a sync."""

from pydantic import Field

from tribal_mcp.services.results import Part, Result
from tribal_mcp.services.results.bundles import SecretsResult


class ReplicaResult(Part):
    """Another machine that shares the folder."""

    id: str
    name: str = Field(description="what people call it")
    files: int = Field(description="the number of its last file that was read here")


class ConflictVersion(Part):
    """A version of a memory that is not visible."""

    replica: str = Field(description="the name of the machine; empty: not known")
    at: str = Field(description="when it was made, by the clock of that machine")
    fields: list[str] = Field(description="what differs; empty: the memory as a whole")
    deleted: bool = Field(description="it is a deletion")
    content: str


class ConflictResult(Part):
    """A memory that was changed on several machines at once."""

    memory_id: str
    content: str = Field(description="what is visible")
    deleted: bool = Field(description="it is deleted")
    versions: list[ConflictVersion]


class SyncResult(Result):
    """A sync with a shared folder, or what it would do in a dry run."""

    folder: str = Field(description="the shared folder")
    replica: str = Field("", description="this machine's id in it")
    name: str = Field("", description="what people call this machine")
    tags: list[str] = Field([], description="only memories with one are shared; empty: all")
    replicas: list[ReplicaResult] = Field([], description="the other machines")
    first_contact: bool = Field(False, description="the first sync of this store with it")
    added: int = Field(0, description="memories that came in")
    changed: int = Field(0, description="memories that others had changed")
    deleted: int = Field(0, description="memories that others had deleted")
    published: int = Field(0, description="changes made here that others can now read")
    without_vector: int = Field(0, description="of those that came in: without a vector")
    kept_private: int = Field(
        0, description="memories left as they are, because they are not shared by their tags"
    )
    conflicts: int = Field(0, description="memories with another version that is not visible")
    conflict_details: list[ConflictResult] = Field([], description="the first 100, if asked for")
    resolved: int = Field(0, description="conflicts that this call resolved")
    files_read: int = 0
    files_written: int = 0
    bytes_written: int = 0
    missing: list[str] = Field([], description="files of other machines that are not here")
    damaged: list[str] = Field([], description="files whose content is not what their name says")
    repaired: list[str] = Field([], description="lost files whose content was published again")
    ignored: list[str] = Field([], description="files that no machine wrote under that name")
    outdated: list[str] = Field(
        [], description="files that their machine had replaced, and that were put back: not used"
    )
    problems: list[str] = Field([], description="what could not be used or published, and why")
    secrets: SecretsResult | None = Field(
        None, description="secrets in what is published; null: no search was requested"
    )
    restore_point: str = Field("", description="identifies what came in for undo; empty: nothing")
    dry_run: bool = False
    duration_ms: int = 0
    notes: list[str] = Field([])
    next_step: str = ""
