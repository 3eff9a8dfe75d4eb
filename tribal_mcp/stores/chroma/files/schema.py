"""The layouts of a Chroma database that this version reads, and the collections in it.

The database is checked migration by migration and column by column. Chroma 0.4 to 1.0 wrote fewer
tables and columns, and some numbers as bytes; temporary views show these as the current layout.
Any other layout is refused, because a wrong guess would return wrong memories.
"""

import json
import sqlite3
from typing import Any

from tribal_mcp.stores.raw import RawCollection, UnknownLayout

MIGRATIONS = {"sysdb": 10, "metadb": 6, "embeddings_queue": 2}
"""The last migration of each part of the database, as of Chroma 1.5.9."""
_OLDEST = {"sysdb": 4, "metadb": 3, "embeddings_queue": 1}
"""The same as of Chroma 0.4.15, the first that has databases and tenants."""

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
_ADDED = {
    "collections": {"config_json_str", "schema_str"},
    "collection_metadata": {"bool_value"},
    "segment_metadata": {"bool_value"},
}
"""The columns that older versions lack."""
_DROPPED = {"collections": {"topic"}, "segments": {"topic"}}
"""The columns that only older versions have."""
LISTS = "embedding_metadata_array"
"""The table that versions before 1.1 lack."""
NO_LISTS = "no_lists"
"""An empty temporary table in its place."""
SHOW_NO_LISTS = (
    f"CREATE TEMP VIEW IF NOT EXISTS {LISTS} AS SELECT *, rowid AS rowid FROM {NO_LISTS}"  # noqa: S608
)
_WITH_LISTS = 6
"""The migration of `metadb` that adds it."""
NO_NUMBER = 1 << 62
"""What is read for a number of the log that is none."""

_COLLECTIONS = """
    SELECT c.id, c.name, dimension, config_json_str, schema_str, m.str_value
    FROM collections c JOIN databases d ON d.id = c.database_id
    LEFT JOIN segments v ON v.collection = c.id AND v.scope = 'VECTOR'
    LEFT JOIN segment_metadata m ON m.segment_id = v.id AND m.key = 'hnsw:space'
    WHERE d.name = 'default_database' AND d.tenant_id = 'default_tenant' ORDER BY c.name
"""
_COLLECTION_METADATA = """
    SELECT key, str_value, int_value, float_value, bool_value
    FROM collection_metadata WHERE collection_id = ?
"""


def adapt_layout(sql: sqlite3.Connection) -> bool:
    """Compare the database with the layouts that this version reads, and show it as the current.

    Returns:
        Whether an older version of Chroma wrote it, so that a newer one has to convert it.

    Raises:
        UnknownLayout: the layout is different.
    """
    columns: dict[str, set[str]] = {}
    for table, column in sql.execute(
        "SELECT t.name, c.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c "
        "WHERE t.type = 'table' AND t.sql NOT LIKE 'CREATE VIRTUAL%'"
    ):
        columns.setdefault(table, set()).add(column)
    found: dict[str, int] = {}
    if "migrations" in columns:
        found = dict(sql.execute("SELECT dir, max(version) FROM migrations GROUP BY dir"))
    older = _is_older(found)
    known = COLUMNS.keys() - ({LISTS} if found.get("metadb", 0) < _WITH_LISTS else set())
    wrong = [t for t in COLUMNS if (t in columns) != (t in known)]
    wrong += [t for t in known & columns.keys() if not _is_known(t, columns[t], older=older)]
    if (found != MIGRATIONS and not older) or wrong:
        tables = f", different columns in {', '.join(wrong)}" if wrong else ""
        raise UnknownLayout(
            f"Another version of Chroma wrote this folder, in an unknown layout: migrations {found}"
            f"{tables}. This version reads {MIGRATIONS}."
        )
    sql.create_function("log_number", 1, log_number, deterministic=True)
    sql.execute(
        "CREATE TEMP VIEW max_seq_id AS "
        "SELECT segment_id, log_number(seq_id) AS seq_id FROM main.max_seq_id"
    )
    for table, added in _ADDED.items():
        if missing := added - columns[table]:
            names = ", ".join(f"NULL AS {c}" if c in missing else c for c in COLUMNS[table].split())
            sql.execute(f"CREATE TEMP VIEW {table} AS SELECT {names} FROM main.{table}")  # noqa: S608
    if LISTS not in columns:
        sql.execute(f"CREATE TEMP TABLE {NO_LISTS} ({', '.join(COLUMNS[LISTS].split())})")
        sql.execute(SHOW_NO_LISTS)
    return older


def is_before_current(sql: sqlite3.Connection) -> bool:
    """Whether an older version of Chroma wrote the database, even one in an unknown layout."""
    try:
        found = dict(sql.execute("SELECT dir, max(version) FROM migrations GROUP BY dir"))
    except sqlite3.DatabaseError:
        return False
    known = {*found} <= {*MIGRATIONS}
    return known and found != MIGRATIONS and all(found[p] <= MIGRATIONS[p] for p in found)


def _is_older(found: dict[str, int]) -> bool:
    """Whether a Chroma from 0.4.15 to 1.4 wrote the database, given its last migrations."""
    return (
        found.keys() == MIGRATIONS.keys()
        and found != MIGRATIONS
        and all(
            type(last) is int and _OLDEST[part] <= last <= MIGRATIONS[part]
            for part, last in found.items()
        )
    )


def _is_known(table: str, columns: set[str], *, older: bool) -> bool:
    expected = set(COLUMNS[table].split())
    if not older:
        return columns == expected
    needed = expected - _ADDED.get(table, set())
    return needed <= columns <= expected | _DROPPED.get(table, set())


def log_number(value: object) -> int:
    """A number of the log; Chroma before 1.0 stored some of them as 8 bytes, big-endian."""
    if isinstance(value, int):
        return value
    if isinstance(value, bytes) and len(value) == 8:  # noqa: PLR2004 - an int64
        return int.from_bytes(value, "big", signed=True)
    if isinstance(value, float) and value.is_integer() and abs(value) < NO_NUMBER:
        return int(value)
    if isinstance(value, str | bytes):
        try:
            return min(int(value), NO_NUMBER)
        except ValueError:
            pass
    return NO_NUMBER


def read_collections(sql: sqlite3.Connection) -> list[RawCollection]:
    """All collections of Chroma's default database, by name."""
    return [
        RawCollection(
            str(collection_id),
            name.decode(errors="replace") if isinstance(name, bytes) else str(name),
            dimension if isinstance(dimension, int) and dimension > 0 else None,
            {"configuration": _json(configuration), "schema": _json(schema)},
            {
                key: _value(*values)
                for key, *values in sql.execute(_COLLECTION_METADATA, (collection_id,))
            },
            legacy_space,
        )
        for collection_id, name, dimension, configuration, schema, legacy_space in sql.execute(
            _COLLECTIONS
        ).fetchall()
    ]


def _json(text: object) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a JSON text; the text itself, which is no valid setting, if it is no JSON."""
    if not text:
        return {}
    try:
        return json.loads(text)  # type: ignore[arg-type]
    except (ValueError, TypeError, RecursionError):
        return "unreadable"


def _value(
    text: str | None, whole: int | None, real: float | None, truth: int | None
) -> str | int | float | bool | None:
    if text is not None:
        return text
    if whole is not None:
        return whole
    return real if real is not None else None if truth is None else bool(truth)
