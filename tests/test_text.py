"""Counts with their nouns."""

import pytest

from tribal_mcp.text import counted, memories


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 memories"), (1, "1 memory"), (2000, "2,000 memories")]
)
def test_only_a_count_of_one_is_singular(count: int, expected: str) -> None:
    assert memories(count) == expected


def test_a_verb_follows_its_noun() -> None:
    assert counted(1, "file is", "files are") == "1 file is"
    assert counted(3, "file") == "3 files"
