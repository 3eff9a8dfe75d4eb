"""Invented memories for the tests; the vectors are pseudo-random but the same in every run."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import Vector

DATA = Path(__file__).parents[1] / "data"
SAMPLES = DATA / "tribalmemory"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def vector(seed: int, dimensions: int = 8) -> Vector:
    """Return a float32 unit vector of shape (dimensions,)."""
    numbers = np.random.default_rng(seed).normal(size=dimensions)
    return (numbers / np.linalg.norm(numbers)).astype(np.float32)


def memory(number: int, dimensions: int = 8, **changes: Any) -> MemoryEntry:  # noqa: ANN401 - any field
    """Return memory `number`, created `number` hours into 2026."""
    values: dict[str, Any] = {
        "id": f"memory-{number}",
        "content": f"Memory number {number}",
        "embedding": vector(number, dimensions),
        "source_instance": "claude-code",
        "source_type": MemorySource.AUTO_CAPTURE,
        "created_at": BEGIN + timedelta(hours=number),
        "tags": ["work"] if number % 2 else ["home"],
    }
    return MemoryEntry(**{**values, **changes})


def memories(count: int, dimensions: int = 8) -> list[MemoryEntry]:
    """Return the first `count` memories."""
    return [memory(number, dimensions) for number in range(count)]
