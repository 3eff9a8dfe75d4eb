"""Lists of dated lines."""

import pytest

from tests.interchange.samples import read_sample, source_of
from tribal_mcp.interchange.formats import recognise
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import UNDATED

ENTRIES = "[2026-01-14] - First.\n"


def entries_of(text: str) -> list[MemoryEntry]:
    return read_sample(source_of(text.encode(), "list.md"))[1]


@pytest.mark.parametrize(
    "heading", ["## Work", "# Work #", "**Work**", "**Work:**"], ids=["#", "closed", "**", ":"]
)
def test_a_heading_is_the_context_of_the_entries_below_it(heading: str) -> None:
    first, second = entries_of(f"{ENTRIES}\n{heading}\n[2026-01-15] - Second.\n  More.\n")
    assert (first.content, first.context) == ("First.", None)
    assert (second.content, second.context) == ("Second.\nMore.", "Work")


@pytest.mark.parametrize(
    ("date", "read"),
    [
        ("2026-1-5", "2026-01-05T00:00:00+00:00"),
        ("2026/01/05", "2026-01-05T00:00:00+00:00"),
        ("2026-01-05 10:30", "2026-01-05T10:30:00+00:00"),
        ("2026-01-05T10:30:00+02:00", "2026-01-05T10:30:00+02:00"),
    ],
)
def test_a_day_is_read_in_each_notation(date: str, read: str) -> None:
    entry = entries_of(f"{ENTRIES}[{date}] - Second.\n")[1]
    assert (entry.content, entry.created_at.isoformat()) == ("Second.", read)


@pytest.mark.parametrize("date", ["2025", "2025-05"])
def test_a_month_or_year_is_kept_beside_an_unknown_date(date: str) -> None:
    first, second = entries_of(f"{ENTRIES}[{date}] - Second.\n")
    assert first.content == "First."
    assert second.metadata == {"date": date}
    assert UNDATED in second.extra


def test_brackets_in_a_continuation_line_begin_no_entry() -> None:
    (entry,) = entries_of(f"{ENTRIES}[2024] Smith et al.\n[x] - y\n")
    assert entry.content == "First.\n[2024] Smith et al.\n[x] - y"


def test_the_same_text_with_another_date_is_left_out_once_more() -> None:
    conversion, entries, _ = read_sample(source_of(f"{ENTRIES}[2026-01-15] - First.".encode()))
    assert len(entries) == 1
    assert dict(conversion.left_out) == {"the same text as an earlier entry": 1}


def test_a_log_is_not_claimed() -> None:
    lines = [f"[2026-01-14 10:00:0{second}] INFO started" for second in range(5)]
    assert recognise(source_of("\n".join(lines).encode(), "server.log")) is None


def test_an_answer_with_more_headings_than_entries_is_a_list() -> None:
    text = f"Here it is:\n```\n# A\n\n# B\n\n## C\n\n# D\n{ENTRIES}  More.\n\n# E\n```\n"
    assert [e.content for e in entries_of(text)] == ["First.\nMore."]


@pytest.mark.parametrize("mark", ["**", "`"], ids=["bold", "code"])
def test_a_date_may_be_bold_or_code(mark: str) -> None:
    (entry,) = entries_of(f"- {mark}[2026-01-14]{mark} - **First.**\n")
    assert entry.content == "**First.**"


def test_code_in_an_entry_is_a_part_of_it() -> None:
    text = f"```\n{ENTRIES}  ~~~\n  make\n  ~~~\n  After.\n```\nThe end.\n"
    assert [e.content for e in entries_of(text)] == ["First.\n~~~\nmake\n~~~\nAfter."]
