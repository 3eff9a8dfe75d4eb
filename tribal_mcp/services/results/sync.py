"""The result of a sync."""

from typing import Any

from pydantic import Field

from tribal_mcp.services.results import Part, Result
from tribal_mcp.services.results.bundles import SecretsResult


class ReplicaResult(Part):
    """Another machine that shares the folder."""

    id: str
    name: str = Field(description="what people call it")
    files: int = Field(description="the number of its last file that was read here")
    last_file_at: str = Field(
        "", description="when its last file was written or arrived, in UTC; empty: it has none here"
    )
    removed: bool = Field(False, description="it counts no longer")
    unread: int = Field(
        0, description="files of this machine that it has not yet confirmed to have read"
    )
    quiet_days: int = Field(
        0, description="days on which this machine synced, since the newest file of that one"
    )

    def last_file(self) -> str:
        """When people last heard of it, in words."""
        at = self.last_file_at[:16].replace("T", " ")
        return f"last file dated {at} UTC" if at else "no file here"


class ConflictVersion(Part):
    """A version of a memory that is not visible."""

    replica: str = Field(description="the name of the machine; empty: not known")
    at: str = Field(description="when it was made, by the clock of that machine; empty: not known")
    fields: list[str] = Field(description="what differs; empty: the memory as a whole")
    deleted: bool = Field(description="it is a deletion")
    content: str
    values: dict[str, Any] = Field(description="the fields that differ, as they are in it")


class ConflictResult(Part):
    """A memory that was changed on several machines at once."""

    memory_id: str
    content: str = Field(description="what is visible")
    deleted: bool = Field(description="it is deleted")
    values: dict[str, Any] = Field(
        description="the fields that differ in one of the versions, as they are visible"
    )
    versions: list[ConflictVersion]


class _Operation(Part):
    """An operation that changed several memories on some machine."""

    operation: str = Field(description="its restore point there")
    what: str = Field(description="import, copy, forget, undo or withdraw")
    source: str = Field(description="such as the name of the bundle")
    machine: str = Field(description="the name of the machine")
    at: str = Field(description="its time, in UTC")


class OperationResult(_Operation):
    """An operation that can be withdrawn."""

    memories: int = Field(description="those that are still as it left them")


class WithdrawnResult(_Operation):
    """What became of the memories that an operation had changed."""

    deleted: int = Field(0, description="it had added them")
    restored: int = Field(0, description="it had changed or deleted them")
    edited: int = Field(0, description="edited since, or at the same time: they stay")
    unknown: int = Field(0, description="what they were before is not kept here: they stay")
    restore_point: str = Field("", description="identifies the withdrawal for undo")


class SyncResult(Result):
    """A sync with a shared folder, or what it would do in a dry run."""

    folder: str = Field(description="the shared folder")
    replica: str = Field("", description="this machine's id in it")
    name: str = Field("", description="what people call this machine")
    tags: list[str] = Field([], description="only memories with one are shared; empty: all")
    replicas: list[ReplicaResult] = Field([], description="the other machines")
    first_contact: bool = Field(False, description="the first sync of this store with it")
    same: int = Field(0, description="at the first contact: memories that are the same in both")
    added: int = Field(0, description="memories that came in")
    changed: int = Field(0, description="memories that others had changed")
    deleted: int = Field(0, description="memories that others had deleted")
    published: int = Field(0, description="changes made here that others can now read")
    without_vector: int = Field(0, description="of those that came in: without a vector")
    kept_private: int = Field(
        0, description="memories left as they are, because they are not shared by their tags"
    )
    left_scope: int = Field(
        0, description="memories that are no longer shared: deleted on the others, kept here"
    )
    conflicts: int = Field(0, description="memories with another version that is not visible")
    conflict_details: list[ConflictResult] = Field([], description="the first 100, if asked for")
    resolved: int = Field(0, description="conflicts that this call resolved")
    operations: list[OperationResult] = Field(
        [], description="what can be withdrawn, if asked for, the newest first"
    )
    withdrawn: WithdrawnResult | None = Field(None, description="what was withdrawn, if asked for")
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
