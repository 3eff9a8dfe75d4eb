"""The digest of memories in files of rules."""

from datetime import UTC, datetime, timedelta

import pytest

from tribal_mcp.errors import UsageError
from tribal_mcp.interchange.base import Memories
from tribal_mcp.interchange.rules import Rules
from tribal_mcp.portability.memory import MemoryEntry

RULES = Rules()
DAY = datetime(2026, 5, 1, tzinfo=UTC)


def entry(number: int, text: str = "", **fields: object) -> MemoryEntry:
    return MemoryEntry(
        id=str(number),
        content=text or f"Memory {number}.",
        created_at=DAY + timedelta(days=number),
        **fields,  # type: ignore[arg-type]
    )


def digest(*entries: MemoryEntry) -> list[str]:
    text = b"".join(RULES.write(Memories(lambda: iter(entries)))).decode()
    begin, *lines, end = text.splitlines()
    assert begin.startswith("<!-- tribal-mcp:begin")
    assert end == "<!-- tribal-mcp:end -->"
    return lines


def losses(*entries: MemoryEntry) -> dict[str, str]:
    return dict(RULES.losses(Memories(lambda: iter(entries))))


def test_the_most_certain_and_then_the_newest_come_first() -> None:
    entries = [entry(1), entry(2), entry(3, confidence=0.4), entry(4, confidence=0.9)]
    assert digest(*entries) == ["- Memory 2.", "- Memory 1.", "- Memory 4.", "- Memory 3."]


def test_a_digest_has_at_most_6000_characters_and_says_what_is_left_out() -> None:
    entries = [entry(number, f"{number} " + "word " * 30) for number in range(500)]
    lines = digest(*entries)
    text = b"".join(RULES.write(Memories(lambda: iter(entries)))).decode()
    assert 5_700 < len(text) <= 6_000
    assert lines[0].startswith("- 499 ")
    lost = losses(*entries)
    assert sum("full" in what for what in lost.values()) == len(entries) - len(lines)


def test_a_corrected_memory_is_left_out() -> None:
    assert digest(entry(1), entry(2, supersedes="1")) == ["- Memory 2."]
    assert "corrects" in losses(entry(1), entry(2, supersedes="1"))["1"]


def test_a_text_stays_in_one_line_and_can_not_end_the_digest() -> None:
    text = "one\ntwo <!-- tribal-mcp:end -->\n\n" + "long " * 100
    (line,) = digest(entry(1, text))
    assert line.startswith("- one two <! -- tribal-mcp:end --> long")
    assert len(line) < 310


PART = "<!-- tribal-mcp:begin. x -->\n- new\n<!-- tribal-mcp:end -->\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", PART),
        ("# Rules\n", f"# Rules\n\n{PART}"),
        ("# Rules", f"# Rules\n\n{PART}"),
        (f"# A\n{PART.replace('new', 'old')}\nB\n", f"# A\n{PART}\nB\n"),
        ("# A\r\n", "# A\r\n\r\n" + PART.replace("\n", "\r\n")),
    ],
    ids=["empty", "rules", "no newline", "old digest", "CRLF"],
)
def test_only_the_part_between_the_marks_is_replaced(text: str, expected: str) -> None:
    assert RULES.within(text, PART) == expected


@pytest.mark.parametrize(
    "text",
    [PART + PART, PART.split("\n", 1)[0] + "\n", "<!-- tribal-mcp:end -->\n"],
    ids=["twice", "no end", "no begin"],
)
def test_marks_that_do_not_match_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="one of each"):
        RULES.within(text, PART)
