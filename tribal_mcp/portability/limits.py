"""What a bundle may hold at most, as named numbers with units."""

import sys

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024


class Limits(BaseModel):
    """Checked before memory is spent; each can be set as `TRIBAL_LIMIT_<NAME>`."""

    model_config = ConfigDict(frozen=True)

    file_bytes: int = Field(32 * 1024 * MIB, gt=0, description="a bundle file, as it lies on disk")
    line_bytes: int = Field(16 * MIB, gt=0, description="one entry, as JSON")
    inline_bytes: int = Field(8 * MIB, gt=0, description="a bundle given in bundle_json")
    entries: int = Field(10_000_000, gt=0, description="entries in a bundle")
    expansion_ratio: int = Field(
        200, gt=0, description="bytes out of a compressed file for each byte in it"
    )
    id_bytes: int = Field(4096, gt=0, description="an id, as UTF-8; also one that is named")
    content_bytes: int = Field(4 * MIB, gt=0, description="the content of one memory, as UTF-8")
    tags: int = Field(1_000, gt=0, description="tags, or related ids, of one memory")
    dimensions: int = Field(65_536, gt=0, description="numbers in a vector")
    nesting: int = Field(32, gt=0, description="JSON levels within an entry")


DEFAULT_LIMITS = Limits()
NO_LIMITS = Limits(**dict.fromkeys(Limits.model_fields, sys.maxsize))
"""For what has passed the limits before."""
