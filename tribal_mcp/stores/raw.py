"""Collections and records as Chroma stores them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.vectors import Vector

HARMLESS_EMBEDDERS = frozenset({"default"})
"""Embedding functions that a stored schema may name: Chroma constructs them on each write."""


class UnknownLayout(StoreDamaged):
    """The files have a layout that this version does not read."""


class RawRecord(NamedTuple):
    """A record; `vector` is float32 of shape (dimension,), or None if it can't be found."""

    id: str
    document: str | None
    metadata: dict[str, Any]
    vector: Vector | None


@dataclass(frozen=True, slots=True)
class RawCollection:
    """A collection as the database has it."""

    id: str
    name: str
    dimension: int | None
    settings: dict[str, Any]
    """The schema and configuration that Chroma stored, by column."""
    metadata: dict[str, Any]
    legacy_space: str | None = None
    """The distance metric that Chroma 0.x stored with the index."""

    @property
    def space(self) -> str:
        """The distance metric: l2, cosine or ip.

        Raises:
            UnknownLayout: the settings name none that is known, or several. A wrong guess would
                return the vectors of a cosine collection divided by their norms.
        """
        try:
            found = {*_spaces(self.settings), self.legacy_space} - {None} or {"l2"}
        except (KeyError, TypeError, AttributeError) as error:
            raise self._unreadable() from error
        if len(found) > 1 or not found <= {"l2", "cosine", "ip"}:
            names = ", ".join(sorted(map(str, found)))
            raise UnknownLayout(
                f"The collection {self.name!r} has an unknown distance metric: {names}."
            )
        return str(found.pop())

    def _unreadable(self) -> UnknownLayout:
        return UnknownLayout(f"The stored settings of the collection {self.name!r} can't be read.")

    def embedding_functions(self) -> set[str]:
        """The embedding functions that the stored settings name, which Chroma constructs.

        Raises:
            UnknownLayout: the settings can't be read.
        """
        if any(not isinstance(value, dict) for value in self.settings.values()):
            raise self._unreadable()
        return {
            str(function.get("name"))
            for node in nodes(self.settings)
            if isinstance(function := node.get("embedding_function"), dict)
            and function.get("type") == "known"
        }


def _spaces(settings: dict[str, Any]) -> list[str | None]:
    if schema := settings.get("schema"):
        index = schema["keys"]["#embedding"]["float_list"]["vector_index"]
        return [index["config"]["space"]]
    configuration = settings.get("configuration") or {}
    # Chroma 1.0 to 1.2 stored it under `vector_index`; the API returns it without.
    indexes = configuration.get("vector_index", configuration)
    return [indexes[kind]["space"] for kind in ("hnsw", "spann") if indexes.get(kind)]


def nodes(value: object) -> Iterator[dict[str, Any]]:
    """The objects within a JSON value."""
    left = [value]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            yield node
            left += node.values()
        elif isinstance(node, list):
            left += node


def where_of(tags: Sequence[str], from_us: int | None, to_us: int | None) -> dict[str, Any] | None:
    """The filter for records with any of the tags and a date in the range."""
    both: list[dict[str, Any]] = []
    if from_us is not None:
        both.append({"created_at_us": {"$gte": from_us}})
    if to_us is not None:
        both.append({"created_at_us": {"$lte": to_us}})
    terms = [{"tags": {"$contains": tag}} for tag in tags]
    if terms:
        both.append({"$or": terms} if len(terms) > 1 else terms[0])
    return {"$and": both} if len(both) > 1 else both[0] if both else None
