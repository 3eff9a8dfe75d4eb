"""CSV, JSON, JSON Lines and Parquet files of no known system, and their field mapping."""

import json
from typing import Any

import pytest

from tests.interchange.samples import SAMPLES, read_sample, source_at, source_of
from tribal_mcp.errors import BundleError, UsageError
from tribal_mcp.interchange.base import Options
from tribal_mcp.interchange.formats import mapped, recognise
from tribal_mcp.interchange.mapping import guess
from tribal_mcp.portability.memory import MemoryEntry


def _read(data: str | bytes, format_name: str = "", **mapping: str) -> list[MemoryEntry]:
    data = data.encode() if isinstance(data, str) else data
    return read_sample(source_of(data), Options(mapping=mapping), format_name)[1]


def test_the_guessed_mapping_is_the_reason_why_a_file_can_be_read() -> None:
    found = recognise(source_at(SAMPLES / "notes.csv"))
    assert found is not None
    assert found.evidence.why == (
        "`Text` as content, `id` as id, `Date` as created_at, `Labels` as tags"
    )


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["Key", "BODY"], {"content": "BODY", "id": "Key"}),
        (["Created At", "memory"], {"content": "memory", "created_at": "Created At"}),
        (["a", "b"], {}),
    ],
    ids=["case", "space", "none"],
)
def test_columns_are_guessed_by_their_names(columns: list[str], expected: dict[str, str]) -> None:
    assert guess(columns) == expected


def test_a_mapping_takes_the_place_of_the_guess() -> None:
    text = "uuid,what,when,text\nu,the content,2026-01-15,not this\n"
    (entry,) = _read(text, content="what", created_at="when", id="")
    assert entry.content == "the content"
    assert entry.created_at.isoformat() == "2026-01-15T00:00:00+00:00"
    assert entry.metadata == {"uuid": "u", "text": "not this"}


def test_a_mapping_makes_any_table_readable() -> None:
    text = "a,b\n1,x\n"
    assert recognise(source_of(text.encode())) is None
    assert mapped(source_of(text.encode())).format.name == "csv"
    assert [e.content for e in _read(text, "csv", content="b", id="a")] == ["x"]


def test_the_mapping_that_is_used_is_shown() -> None:
    source = source_of(b"uuid,what\nu,x\n")
    read_sample(source, Options(mapping={"content": "what"}), "csv")
    assert source.notes == ["Read with `uuid` as id, `what` as content."]


def test_two_fields_that_may_be_the_content_are_refused_until_one_is_chosen() -> None:
    text = "text,note\none,two\n"
    found = recognise(source_of(text.encode()))
    assert found is not None
    assert "the content could also be `note`" in found.evidence.why
    with pytest.raises(BundleError, match="'text' or 'note'"):
        _read(text)
    assert [e.content for e in _read(text, content="note")] == ["two"]


def test_a_mapping_to_a_field_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="no field 'body'"):
        _read("text,id\nx,1\n", content="body")
    with pytest.raises(UsageError, match="'colour' is not a field"):
        _read("text,id\nx,1\n", colour="id")


@pytest.mark.parametrize(
    "delimiter", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "bar"]
)
def test_a_table_may_have_any_usual_delimiter(delimiter: str) -> None:
    rows = [["id", "text"], ["1", "one"], ["2", "two"]]
    text = "\r\n".join(delimiter.join(row) for row in rows)
    assert [(e.id, e.content) for e in _read(text)] == [("1", "one"), ("2", "two")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_of_a_spreadsheet_is_read(encoding: str) -> None:
    assert [e.content for e in _read("id,text\n1,Zürich\n".encode(encoding))] == ["Zürich"]


def test_a_table_in_another_encoding_is_refused() -> None:
    with pytest.raises(BundleError, match="UTF-8"):
        _read("id,text\n1,Zürich\n".encode("latin-1"), "csv")


def test_a_column_that_is_named_twice_is_refused() -> None:
    with pytest.raises(BundleError, match="not a CSV table"):
        _read("text,text\na,b\n", "csv")


def test_a_quote_that_never_ends_is_rejected_with_its_line() -> None:
    conversion, entries, _ = read_sample(source_of(b'id,text\n1,one\n2,"two\n3,three\n'))
    assert [e.content for e in entries] == ["one"]
    assert [r.where for r in conversion.rejected] == ["line 3"]


@pytest.mark.parametrize("value", ["2026", "12.5", "17 May 2026", "31/12/2025"])
def test_a_date_that_is_none_rejects_its_row(value: str) -> None:
    text = f"text,date\none,2026-01-15\ntwo,{value}\n"
    conversion, entries, _ = read_sample(source_of(text.encode()))
    assert len(entries) == 1
    assert conversion.rejected[0].where == "line 3"
    assert f"`date` is '{value}'" in conversion.rejected[0].reason


def test_a_date_that_is_none_is_kept_if_no_column_is_created_at() -> None:
    source = source_of(b"text,date\none,31/12/2025\n")
    _, (entry,), _ = read_sample(source, Options(mapping={"created_at": ""}), "csv")
    assert entry.metadata == {"date": "31/12/2025"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_the_line_with_which_excel_names_the_delimiter_is_no_header(delimiter: str) -> None:
    text = f"sep={delimiter}\r\ntext{delimiter}n\r\nx{delimiter}1\r\n"
    (entry,) = _read(text)
    assert (entry.content, entry.metadata) == ("x", {"n": "1"})


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e999", "-1" + "0" * 400], ids=len)
def test_a_number_too_large_for_a_date_rejects_its_record(number: str) -> None:
    text = f'[{{"content": "a", "created_at": {number}}}, {{"content": "b"}}]'
    conversion, entries = read_sample(source_of(text.encode(), "x.json"))[:2]
    assert (len(entries), conversion.rejected_count) == (1, 1)


@pytest.mark.parametrize("date", ["20260115", "2026-01-15 00:00:00 UTC", "2026-01-15T00:00Z"])
def test_a_date_is_read_without_separators_and_with_the_name_of_utc(date: str) -> None:
    (entry,) = _read(f"text,date\nx,{date}\n")
    assert entry.created_at.isoformat() == "2026-01-15T00:00:00+00:00"


@pytest.mark.parametrize("tags", ["a, b", "a;b", '["a", "b"]', "a,b,a,"])
def test_tags_are_read_from_a_text(tags: str) -> None:
    assert _read(f"text\ttags\nx\t{tags}\n")[0].tags == ["a", "b"]


def test_a_record_without_an_id_has_the_same_one_in_every_import() -> None:
    lines = '{"text": "one"}\n{"text": "two"}\n'
    other = '{"text": "zero"}\n' + lines
    assert [e.id for e in _read(lines)] == [e.id for e in _read(other)][1:]


def test_an_object_with_two_lists_is_not_guessed() -> None:
    document = {"notes": [{"text": "x"}], "others": [{"text": "y"}]}
    assert recognise(source_of(json.dumps(document).encode())) is None


@pytest.mark.parametrize(
    "record",
    [
        {"text": ["x"]},
        {"text": "x", "id": 1.5},
        {"text": "x", "id": {"a": 1}},
        {"text": "x", "date": [1]},
        {"text": "x", "date": 1e400},
        {"text": "x", "tags": {"a": 1}},
        {"text": "x", "context": 7},
        {"text": "\ud800"},
    ],
    ids=["text", "id", "object", "date", "infinity", "tags", "context", "surrogate"],
)
def test_a_bad_record_is_rejected_with_its_line(record: dict[str, Any]) -> None:
    rows = [{"text": "good"}, {"text": "too"}, record]
    text = "\n".join(map(json.dumps, rows))
    conversion, entries, _ = read_sample(source_of(text.encode()))
    assert [e.content for e in entries] == ["good", "too"]
    assert [r.where for r in conversion.rejected] == ["line 3"]


def test_a_damaged_parquet_file_is_refused() -> None:
    data = (SAMPLES / "notes.parquet").read_bytes()
    assert recognise(source_of(data[:-20])) is None
    with pytest.raises(BundleError):
        _read(data[:-20], "parquet")
