"""The one layout of a Chroma folder that this version knows.

The database is checked migration by migration and column by column. Any other layout is refused,
for a wrong guess would be a wrong memory.
"""

import json
import sqlite3
from typing import Any

from tribal_mcp.stores.raw import UnknownLayout

MIGRATIONS = {"sysdb": 10, "metadb": 6, "embeddings_queue": 2}
"""The last migration of each part of the database, as Chroma 1.5.9 leaves it."""

_VALUES = "string_value int_value float_value bool_value"
COLUMNS = {
    "collections": "id name dimension database_id config_json_str schema_str",
    "collection_metadata": "collection_id key str_value int_value float_value bool_value",
    "databases": "id name tenant_id",
    "segments": "id type scope collection",
    "segment_metadata": "segment_id key str_value int_value float_value bool_value",
    "embeddings": "id segment_id embedding_id seq_id created_at",
    "embedding_metadata": f"id key {_VALUES}",
    "embedding_metadata_array": f"id key {_VALUES}",
    "embeddings_queue": "seq_id created_at operation topic id vector encoding metadata",
    "max_seq_id": "segment_id seq_id",
}
"""The tables that are read, with all their columns."""


def check_layout(sql: sqlite3.Connection) -> None:
    """Hold the database against the layout that is known.

    Raises:
        UnknownLayout: it is another one.
    """
    columns: dict[str, set[str]] = {}
    for table, column in sql.execute(
        "SELECT t.name, c.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c "
        "WHERE t.sql NOT LIKE 'CREATE VIRTUAL%'"
    ):
        columns.setdefault(table, set()).add(column)
    wrong = [table for table, names in COLUMNS.items() if columns.get(table) != set(names.split())]
    found = {}
    if "migrations" in columns:
        found = dict(sql.execute("SELECT dir, max(version) FROM migrations GROUP BY dir"))
    if found != MIGRATIONS or wrong:
        raise UnknownLayout(
            f"The Chroma folder has a layout that is not known: {found} where {MIGRATIONS} is"
            f"{', and other columns in ' if wrong else ''}{', '.join(wrong)}. It was written by "
            "another version of Chroma."
        )


def as_json(text: str | None) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a JSON column; an empty object where it is empty."""
    return json.loads(text) if text else {}


def as_value(
    text: str | None, whole: int | None, real: float | None, truth: int | None
) -> str | int | float | bool | None:
    """The value of a row of metadata, which stands in one of four columns."""
    if text is not None:
        return text
    if whole is not None:
        return whole
    return real if real is not None else None if truth is None else bool(truth)
