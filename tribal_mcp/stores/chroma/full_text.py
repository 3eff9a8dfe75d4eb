"""Chroma's full-text table, without which each of its writes fails."""

import sqlite3

_NAME = "embedding_fulltext_search"
_PARTS = ("", "_data", "_idx", "_content", "_docsize", "_config")
_CREATE = f"CREATE VIRTUAL TABLE {_NAME} USING fts5(string_value, tokenize='trigram')"
_PROBE = f"SELECT rowid FROM main.{_NAME} WHERE {_NAME} MATCH 'abc' LIMIT 1"  # noqa: S608
_FILL = f"""
    INSERT INTO {_NAME} (rowid, string_value) SELECT id, string_value FROM main.embedding_metadata
    WHERE key = 'chroma:document' AND string_value IS NOT NULL
"""  # noqa: S608


def has_full_text(sql: sqlite3.Connection) -> bool:
    """Whether the table is there with all its parts, and can be searched.

    Raises:
        sqlite3.Error: the disk fails.
    """
    names = {row[0] for row in sql.execute("SELECT name FROM main.sqlite_master")}
    if not {f"{_NAME}{part}" for part in _PARTS} <= names:
        return False
    return _can_search(sql) or _can_search(sql)  # a read that failed once looks like damage


def _can_search(sql: sqlite3.Connection) -> bool:
    try:
        sql.execute(_PROBE).fetchone()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR:
            raise
        return False
    return True


def create_full_text(sql: sqlite3.Connection) -> None:
    """Create the table from the documents, replacing what is left of it."""
    for part in _PARTS:
        try:
            sql.execute(f"DROP TABLE IF EXISTS {_NAME}{part}")
        except sqlite3.DatabaseError:  # what is left can't be opened
            sql.execute("PRAGMA writable_schema = ON")
            sql.execute("DELETE FROM sqlite_master WHERE name = ?", (f"{_NAME}{part}",))
            sql.execute("PRAGMA writable_schema = RESET")
    sql.execute(_CREATE)
    sql.execute(_FILL)
