"""Vectors of other systems' memories, and their records without some of the fields."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tribal_mcp.errors import EntryError
from tribal_mcp.portability.vectors import Vector, as_vector
from tribal_mcp.text import counted


@dataclass(slots=True)
class Vectors:
    """Reads the vectors of a source; a memory whose vector can't be used is read without it.

    Attributes:
        notes: receives a sentence about vectors that can't be used.
        dimensions: the length of the vectors; 0 until the first.
    """

    notes: list[str]
    dimensions: int = 0
    _unusable: int = 0

    def read(self, value: Any) -> Vector | None:  # noqa: ANN401 - anything that may be a vector
        """The vector, or None if there is none that can be used beside the earlier ones."""
        if value is None:
            return None
        try:
            vector = as_vector(value)
        except EntryError:
            self._unusable += 1
            return None
        self.dimensions = self.dimensions or vector.size
        if vector.size != self.dimensions:
            self._unusable += 1
            return None
        return vector

    def finish(self) -> None:
        """Note how many vectors can't be used."""
        if self._unusable:
            self.notes.append(
                f"{counted(self._unusable, 'vector')} with invalid numbers or of another length "
                f"than {self.dimensions:,} left out; the memories are read."
            )


def without(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A copy of the record without these fields."""
    return {key: value for key, value in record.items() if key not in names}
