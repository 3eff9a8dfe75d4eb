"""Finds and corrects values whose type is not that of their column.

SQLite stores a value of any type in any column. A damaged page, or another program, may leave bytes
where a text belongs, or a word where a number does. Bytes that are UTF-8 are read as the text, and
digits as the number; other values can't be read.
"""

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from tribal_mcp.text import counted

_NUMBERS = {
    "int_value": "typeof({c}) NOT IN ('integer', 'null')",
    "float_value": "typeof({c}) NOT IN ('real', 'integer', 'null')",
    "bool_value": "{c} IS NOT NULL AND ({c} NOT IN (0, 1) OR typeof({c}) <> 'integer')",
}
"""Conditions that find values of another type."""
_AS_TEXT = "as_text(CAST({} AS BLOB))"
_SET_ID = """
    UPDATE OR IGNORE main.embeddings SET embedding_id = CASE
        WHEN is_text(CAST(embedding_id AS BLOB)) THEN {text} ELSE 'unreadable-id-' || id
    END WHERE {bad}
"""


class _Rule(NamedTuple):
    """Values that have another type than their column.

    Attributes:
        table: the table.
        column: the column.
        find: the condition that finds them.
        correct: the statements that correct them, or remove those that can't be read.
    """

    table: str
    column: str
    find: str
    correct: list[str]


class WrongType(NamedTuple):
    """How many values of a column have another type."""

    column: str
    values: int

    def __str__(self) -> str:
        values = counted(self.values, "value", "values")
        return f"{values} of the column {self.column} can't be read as stored"


def wrong_types(sql: sqlite3.Connection) -> list[WrongType]:
    """The columns of `sql` with values of another type. Reads all rows."""
    return [found for _, found in _found(sql)]


def correct_types(sql: sqlite3.Connection) -> list[WrongType]:
    """Correct the values of another type, and remove those that can't be read; what was found."""
    found = list(_found(sql))
    for rule, _ in found:
        for statement in rule.correct:
            sql.execute(statement)
    return [wrong for _, wrong in found]


def _found(sql: sqlite3.Connection) -> Iterator[tuple[_Rule, WrongType]]:
    sql.create_function("as_text", 1, _as_text, deterministic=True)
    sql.create_function("is_text", 1, _is_text, deterministic=True)
    tables = {row[0] for row in sql.execute("SELECT name FROM main.sqlite_master").fetchall()}
    for rule in _RULES:
        if rule.table in tables:
            query = f"SELECT count(*) FROM main.{rule.table} WHERE {rule.find}"  # noqa: S608
            count = int(sql.execute(query).fetchone()[0])
            if count:
                yield rule, WrongType(f"{rule.table}.{rule.column}", count)


def _bad_text(column: str) -> str:
    return (
        f"typeof({column}) NOT IN ('text', 'null') OR "
        f"(typeof({column}) = 'text' AND NOT is_text(CAST({column} AS BLOB)))"
    )


def _text(table: str, column: str) -> _Rule:
    bad = _bad_text(column)
    change = f"UPDATE OR IGNORE main.{table} SET {column} = {_AS_TEXT.format(column)} WHERE {bad}"  # noqa: S608
    return _Rule(table, column, bad, [change])


def _number(table: str, column: str, bad: str) -> _Rule:
    text = _AS_TEXT.format(column)
    change = (
        f"UPDATE main.{table} SET {column} = CAST({text} AS INTEGER) "  # noqa: S608
        f"WHERE ({bad}) AND {text} GLOB '[0-9]*' AND {text} NOT GLOB '*[^0-9]*'"
    )
    return _Rule(table, column, bad, [change, *_removal(table, bad)])


def _removal(table: str, bad: str) -> list[str]:
    return [f"DELETE FROM main.{table} WHERE {bad}"]  # noqa: S608


def _rules() -> Iterator[_Rule]:
    """The rules for the columns that Chroma reads."""
    bad = _bad_text("embedding_id")
    text = _AS_TEXT.format("embedding_id")
    yield _Rule("embeddings", "embedding_id", bad, [_SET_ID.format(text=text, bad=bad)])
    for table in ("embedding_metadata", "embedding_metadata_array"):
        yield _text(table, "string_value")
        yield _text(table, "key")
        yield _Rule(table, "key", "key IS NULL", _removal(table, "key IS NULL"))
        for column, condition in _NUMBERS.items():
            yield _number(table, column, condition.format(c=column))
    for column, bad in (
        ("str_value", _bad_text("str_value")),
        ("int_value", _NUMBERS["int_value"].format(c="int_value")),
    ):
        yield _Rule("collection_metadata", column, bad, _removal("collection_metadata", bad))
    yield _text("collections", "name")


_RULES = list(_rules())


def _is_text(value: object) -> bool:
    if isinstance(value, str):
        return True
    try:
        return isinstance(value, bytes) and value.decode() is not None
    except UnicodeDecodeError:
        return False


def _as_text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
