"""The results of the use cases: counts, paths and ids; only recall, list and show return texts.

They are the wire format, and their descriptions are its docs. A model takes a millisecond to build,
so a use case imports only the module of its results.
"""

from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from tribal_mcp.next_steps import NextStep

if TYPE_CHECKING:
    from tribal_mcp.portability.manifest import EmbeddingMetadata

DETAILS = 100
"""Errors that a summary lists; the rest is a count."""


class Part(BaseModel):
    """A part of a result. Its validator is built when it is first used."""

    model_config = ConfigDict(defer_build=True)


class Result(Part):
    """The base of all results.

    `next_steps` is for callers in Python and for the interfaces, which render it into
    `next_step`; it is in no dump and in no schema.
    """

    next_steps: SkipJsonSchema[list[NextStep]] = Field(default_factory=list, exclude=True)
    if TYPE_CHECKING:  # each result declares these two in the place that the wire format has
        notes: list[str]
        next_step: str


class EmbeddingResult(Part):
    """An embedding model."""

    model_name: str
    dimensions: int
    provider: str

    @classmethod
    def of(cls, model: "EmbeddingMetadata") -> Self:
        """The result about a model."""
        return cls(
            model_name=model.model_name, dimensions=model.dimensions, provider=model.provider
        )
