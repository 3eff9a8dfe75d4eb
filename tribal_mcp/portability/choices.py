"""The choices that every interface offers, each spelled once; imports nothing of ours."""

from enum import StrEnum


class ConflictResolution(StrEnum):
    """Which entry stays when both sides have the same id."""

    SKIP = "skip"
    """The existing one."""
    OVERWRITE = "overwrite"
    """The incoming one."""
    MERGE = "merge"
    """The one with the newer `updated_at`; the existing one when both are the same."""
    KEEP_BOTH = "keep_both"
    """Both: the incoming one under a new id, when it differs."""
    FAIL = "fail"
    """Neither: any entry that differs refuses the whole import."""


class ReembeddingStrategy(StrEnum):
    """What an import does with the vectors of a bundle."""

    AUTO = "auto"
    """Keep them when the models match, else drop them."""
    KEEP = "keep"
    """Keep them whatever the model."""
    DROP = "drop"
    """Drop them."""
    REEMBED = "reembed"
    """Keep them when the models match; make the others, and those that are missing, anew."""


class MemorySource(StrEnum):
    """Where a memory came from."""

    USER_EXPLICIT = "user_explicit"
    AUTO_CAPTURE = "auto_capture"
    CORRECTION = "correction"
    CROSS_INSTANCE = "cross_instance"
    LEGACY = "legacy"
    UNKNOWN = "unknown"

    @classmethod
    def read(cls, text: str) -> "MemorySource":
        """The source type of that name; UNKNOWN for one that is not ours."""
        return _SOURCES.get(text, cls.UNKNOWN)


_SOURCES = {source.value: source for source in MemorySource}
