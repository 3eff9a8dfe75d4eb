"""Marks in the integrity block: how many there are, and which entry they point to."""

import hashlib

import pytest

from tribal_mcp.portability.bundle.integrity import EntriesHash


def hash_of(count: int, changed: int = 0) -> EntriesHash:
    """The hash of so many entries; the one with the number `changed` is different."""
    found = EntriesHash()
    for number in range(1, count + 1):
        found.add(b"changed" if number == changed else b"%d" % number)
    return found


@pytest.mark.parametrize(
    ("count", "every", "marks"),
    [(1, 1, 1), (4_095, 1, 4_095), (4_096, 2, 2_048), (8_191, 2, 4_095), (8_192, 4, 2_048)],
)
def test_the_step_between_marks_doubles_when_there_would_be_too_many(
    count: int, every: int, marks: int
) -> None:
    found = hash_of(count).marks()
    assert (found["every"], len(found["sha256"])) == (every, 8 * marks)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8])
def test_a_mark_is_the_beginning_of_the_hash_after_its_entry(number: int) -> None:
    text = b"".join(b"%d\n" % n for n in range(1, number + 1))
    marks = hash_of(9).marks()["sha256"]
    assert marks[8 * (number - 1) : 8 * number] == hashlib.sha256(text).hexdigest()[:8]


@pytest.mark.parametrize(
    ("count", "changed", "expected"),
    [
        (10, 7, (7, 7)),
        (4_096, 1, (1, 2)),
        (4_096, 100, (99, 100)),
        (8_192, 5_001, (5_001, 5_004)),
        (8_192, 8_192, (8_189, 8_192)),
    ],
)
def test_marks_locate_a_changed_entry_within_one_step(
    count: int, changed: int, expected: tuple[int, int]
) -> None:
    assert hash_of(count, changed).first_difference(hash_of(count).marks()) == expected


def test_marks_with_other_steps_are_compared_at_the_larger_one() -> None:
    assert hash_of(4_096, 7).first_difference(hash_of(10).marks()) == (7, 8)
    assert hash_of(10, 7).first_difference(hash_of(4_096).marks()) == (7, 8)
