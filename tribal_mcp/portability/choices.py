"""The choices that every interface offers, each spelled once. Imports nothing of this package."""

from enum import StrEnum


class ConflictResolution(StrEnum):
    """What an import does when an id already exists in the store."""

    SKIP = "skip"
    """Keep the existing memory."""
    OVERWRITE = "overwrite"
    """Take the incoming memory."""
    MERGE = "merge"
    """Take the memory with the newer `updated_at`; keep the existing one if both are equal."""
    KEEP_BOTH = "keep_both"
    """Keep the existing memory, and add an incoming one that differs under a new id."""
    FAIL = "fail"
    """Refuse the whole import if any memory differs."""
    MIRROR = "mirror"
    """Make the store equal to the bundle: also delete what the bundle does not have."""


class ReembeddingStrategy(StrEnum):
    """What an import does with the vectors of a bundle."""

    AUTO = "auto"
    """Keep them if the embedding models match; otherwise drop them."""
    KEEP = "keep"
    """Keep them, whatever their model."""
    DROP = "drop"
    """Drop them."""
    REEMBED = "reembed"
    """Keep them if the embedding models match; compute the others, and missing ones, again."""


class Secrets(StrEnum):
    """What an export does about secrets in memories."""

    REPORT = "report"
    """Export them, and say where they are."""
    REDACT = "redact"
    """Export marks in their place."""
    REFUSE = "refuse"
    """Export nothing if there is one."""


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
        """The source with this value; UNKNOWN for any other text."""
        return _SOURCES.get(text, cls.UNKNOWN)


_SOURCES = {source.value: source for source in MemorySource}
