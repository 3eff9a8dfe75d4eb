"""The one layout of a Chroma database that this version reads, and the collections in it.

The database is checked migration by migration and column by column. Any other layout is refused,
because a wrong guess would return wrong memories.
"""

import json
import sqlite3
from typing import Any

from tribal_mcp.stores.raw import RawCollection, UnknownLayout

MIGRATIONS = {"sysdb": 10, "metadb": 6, "embeddings_queue": 2}
"""The last migration of each part of the database, as of Chroma 1.5.9."""

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


def check_layout(sql: sqlite3.Connection) -> None:
    """Compare the database with the layout that this version reads.

    Raises:
        UnknownLayout: the layout is different.
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
        tables = f", different columns in {', '.join(wrong)}" if wrong else ""
        raise UnknownLayout(
            f"Another version of Chroma wrote this folder, in an unknown layout: migrations {found}"
            f"{tables}. This version reads {MIGRATIONS}."
        )


def read_collections(sql: sqlite3.Connection) -> list[RawCollection]:
    """All collections of Chroma's default database, by name."""
    return [
        RawCollection(
            collection_id,
            name,
            dimension,
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


def _json(text: str | None) -> Any:  # noqa: ANN401 - any JSON value
    return json.loads(text) if text else {}


def _value(
    text: str | None, whole: int | None, real: float | None, truth: int | None
) -> str | int | float | bool | None:
    if text is not None:
        return text
    if whole is not None:
        return whole
    return real if real is not None else None if truth is None else bool(truth)
