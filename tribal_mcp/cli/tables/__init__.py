"""The results of the use cases as short tables; a module for each of `services/results/`."""

from functools import singledispatch
from importlib import import_module
from typing import TYPE_CHECKING

from pydantic import BaseModel

from tribal_mcp.services.results import EmbeddingResult
from tribal_mcp.text import memories as memories_of

if TYPE_CHECKING:
    from tribal_mcp.services.results.bundles import SecretsResult

Rows = list[tuple[str, str]]

DAY = len("2026-01-15")
_KILO = 1000


def rows(result: BaseModel) -> Rows:
    """The label and the value of each row of a result."""
    import_module(f"{__name__}.{type(result).__module__.rpartition('.')[2]}")
    return as_table(result)


@singledispatch
def as_table(_result: BaseModel) -> Rows:
    """As `rows`, of the results whose module is imported."""
    return []


@singledispatch
def details(_result: BaseModel) -> list[str]:
    """The lines below the table of a result, once `rows` has been called."""
    return []


def secrets(found: "SecretsResult | None") -> Rows:
    """A row for each memory with secrets, as far as the result lists them."""
    if found is None:
        return []
    listed = [
        f"{one.id}: {', '.join(one.kinds)} in {', '.join(one.fields)}" for one in found.first
    ] or ["none found"]
    if more := found.memories - len(found.first):
        listed.append(f"and in {more:,} more")
    return list(zip(["secrets", *[""] * len(listed)], listed, strict=False))


def without_vector(count: int) -> str:
    """How many memories have no vector."""
    return f"{memories_of(count)} {'has' if count == 1 else 'have'} no vector"


def aligned(counts: dict[str, int]) -> Rows:
    """A row for each count, right-aligned."""
    width = max((len(f"{count:,}") for count in counts.values()), default=0)
    return [(label, f"{count:>{width},}") for label, count in counts.items()]


def parts(counts: dict[str, int]) -> str:
    """Each count that is not 0, and of what."""
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def by_name(counts: dict[str, int]) -> str:
    """Each name with its count."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def model_of(embedding: EmbeddingResult) -> str:
    """A model with its dimensions and provider."""
    provider = f", {embedding.provider}" if embedding.provider != "unknown" else ""
    dimensions = f", {embedding.dimensions:,} dimensions" if embedding.dimensions else ""
    return f"{embedding.model_name}{dimensions}{provider}"


def size_of(count: float) -> str:
    """A number of bytes, in three digits."""
    for unit in ("bytes", "kB", "MB"):
        if count < _KILO:
            return f"{count:.3g} {unit}"
        count /= _KILO
    return f"{count:,.3g} GB"
