"""The limits on what a bundle may hold, as named numbers with units."""

import sys

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024


class Limits(BaseModel):
    """Checked before memory is allocated; the setting of each is `TRIBAL_LIMIT_<NAME>`."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    file_bytes: int = Field(32 * 1024 * MIB, gt=0, description="a bundle file on disk")
    line_bytes: int = Field(16 * MIB, gt=0, description="one entry as JSON")
    inline_bytes: int = Field(8 * MIB, gt=0, description="a bundle that is given inline")
    entries: int = Field(10_000_000, gt=0, description="entries in a bundle")
    expansion_ratio: int = Field(
        200, gt=0, description="bytes that a compressed file expands to, per byte"
    )
    label_bytes: int = Field(
        1000, gt=0, description="a tag, a source or the name of a model, as UTF-8"
    )
    id_bytes: int = Field(4096, gt=0, description="an id or a link to one, as UTF-8")
    content_bytes: int = Field(4 * MIB, gt=0, description="the content of one memory, as UTF-8")
    tags: int = Field(1_000, gt=0, description="tags of one memory, and related ids")
    dimensions: int = Field(65_536, gt=0, description="numbers in a vector")
    nesting: int = Field(32, gt=0, description="levels of nested JSON in one entry")


DEFAULT_LIMITS = Limits.model_construct()
NO_LIMITS = DEFAULT_LIMITS.model_copy(update=dict.fromkeys(Limits.model_fields, sys.maxsize))
"""For data that has already passed the limits."""
