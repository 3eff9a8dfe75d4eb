"""Results of use cases about backups."""

from pydantic import Field

from tribal_mcp.services.results import Part, Result
from tribal_mcp.services.results.bundles import ImportResult


class KeyResult(Result):
    """A new key for encryption with age."""

    path: str = Field(description="the file with the key, which decrypts")
    recipient: str = Field(description="what to encrypt to")
    notes: list[str] = Field([], description="further information")
    next_step: str = Field("", description="what to do next")


class BackupResult(Result):
    """A backup, or that nothing had changed."""

    path: str = Field(description="the new backup; empty if nothing had changed")
    kind: str = Field(description="full or increment")
    at: str = Field(description="the time of the state in it")
    bytes: int = Field(description="its size")
    memory_count: int = Field(description="memories in it")
    deleted: int = Field(description="tombstones in it")
    removed: list[str] = Field(description="backups that were removed, as no rule kept them")
    kept: int = Field(description="backups in the folder now that can be restored")
    unreadable: list[str] = Field(description="those that can't, each with the reason")
    encrypted: bool
    notes: list[str] = Field([], description="further information")
    next_step: str = Field("", description="what to do next")


class BackupFile(Part):
    """A backup in a folder."""

    name: str
    at: str = Field(description="the time of the state in it")
    kind: str = Field(description="full or increment")
    memories: int = Field(description="memories in the store at that time")
    bytes: int
    encrypted: bool
    problem: str = Field("", description="why it can't be restored; empty as far as is known")


class BackupsResult(Result):
    """The backups in a folder, the newest first."""

    folder: str
    backups: list[BackupFile]
    bytes: int = Field(description="the size of all of them")
    verified: bool = Field(description="whether they were read completely")
    notes: list[str] = Field([], description="further information")
    next_step: str = Field("", description="what to do next")


class RestoreResult(ImportResult):
    """The restoring of a backup, or what it would do in a dry run."""

    backup: str = Field(description="the backup")
    restored_at: str = Field(description="the time of the state in it")
