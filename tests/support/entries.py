"""Hypothesis strategies for everything that an entry can contain."""

from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.memory import MemoryEntry

DIMENSIONS = 3

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "",
        "\0",
        "\u2028\u2029",
        "\ufeff",
        "a,b",
        '"\\',
        "👩\u200d👩\u200d👧",
        "\r\n",
        '"embedding":[',
        "NaN",
    ]
)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = st.lists(float32s, min_size=DIMENSIONS, max_size=DIMENSIONS).map(
    lambda numbers: np.array(numbers, dtype=np.float32)
)
zones = st.integers(-86_399, 86_399).map(lambda offset: timezone(timedelta(seconds=offset)))
dates = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001
date_texts = st.sampled_from(
    ["2026-01-15", "2026-01-15T10:30", "20260115T103000Z", "2026-W03-4", "2026-01-15 10:30:00.5+02"]
)
finite = st.floats(allow_nan=False, allow_infinity=False)


def objects() -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects."""
    values = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | finite | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=8,
    )
    return st.dictionaries(texts, values, max_size=4)


OURS = {
    "id", "content", "embedding", "source_instance", "source_type", "created_at", "updated_at",
    "tags", "context", "confidence", "supersedes", "related_to", "metadata",
}  # fmt: skip


@st.composite
def entries(draw: st.DrawFn) -> MemoryEntry:
    """Any entry whose vector, if any, has shape (DIMENSIONS,)."""
    verbatim = {}
    created_at = draw(dates)
    if text := draw(st.none() | date_texts):
        created_at = datetime.fromisoformat(text)
        verbatim["created_at"] = text
    source = draw(st.sampled_from(MemorySource) | texts)
    return MemoryEntry(
        id=draw(texts.filter(bool)),
        content=draw(texts),
        embedding=draw(st.none() | vectors),
        source_instance=draw(texts),
        source_type=source,  # type: ignore[arg-type]
        created_at=created_at,
        updated_at=draw(dates),
        tags=draw(st.lists(texts, max_size=4)),
        context=draw(st.none() | texts),
        confidence=draw(st.floats(0, 1)),
        supersedes=draw(st.none() | texts),
        related_to=draw(st.lists(texts, max_size=3)),
        metadata=draw(objects()),
        extra={key: value for key, value in draw(objects()).items() if key not in OURS},
        verbatim=verbatim,
    )


def many(max_size: int = 5) -> st.SearchStrategy[list[MemoryEntry]]:
    """The entries of one bundle."""
    return st.lists(entries(), max_size=max_size, unique_by=lambda entry: entry.id)
