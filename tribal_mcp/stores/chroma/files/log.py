"""Shows the changes that are in Chroma's log only, without writing to Chroma's files.

Chroma writes each call to its log (`embeddings_queue`) first, then to the rows, and to the index
files from time to time. If the writer was killed in between, Chroma applies the rest of the log the
next time it opens the folder. Until then, temporary views over the tables give the same result.
"""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from tribal_mcp.stores.chroma.files.schema import LISTS, NO_LISTS, SHOW_NO_LISTS

ADD: Final = 0
UPDATE: Final = 1
UPSERT: Final = 2
DELETE: Final = 3

_UNAPPLIED = """
    SELECT log.seq_id, rows.id, log.operation, log.id, log.metadata
    FROM segments AS rows LEFT JOIN max_seq_id AS applied ON applied.segment_id = rows.id
    CROSS JOIN embeddings_queue AS log
    WHERE rows.scope = 'METADATA' AND log.topic LIKE '%/' || rows.collection
    AND log.seq_id > CASE
        WHEN applied.seq_id IS NULL THEN 0
        WHEN applied.seq_id <= (SELECT max(seq_id) FROM embeddings_queue) THEN applied.seq_id
        ELSE coalesce((SELECT max(log_number(seq_id)) FROM main.embeddings
            WHERE segment_id = rows.id AND log_number(seq_id) < 1 << 62), 0)
    END ORDER BY log.seq_id
"""
"""If a segment claims to have applied more than the log has, its rows tell what it has applied."""
_NO_OVERLAY = """
    DROP VIEW IF EXISTS temp.embeddings;
    DROP VIEW IF EXISTS temp.embedding_metadata;
    DROP VIEW IF EXISTS temp.embedding_metadata_array;
    DROP TABLE IF EXISTS temp.replaced;
    DROP TABLE IF EXISTS temp.late_rows;
    DROP TABLE IF EXISTS temp.late_values;
    DROP TABLE IF EXISTS temp.late_lists;
"""
_OVERLAY = """
    CREATE TEMP TABLE replaced (id INTEGER PRIMARY KEY);
    CREATE TEMP TABLE late_rows (id INTEGER PRIMARY KEY, segment_id TEXT, embedding_id TEXT,
        seq_id INTEGER);
    CREATE TEMP TABLE late_values (id INTEGER, key TEXT, string_value TEXT, int_value INTEGER,
        float_value REAL, bool_value INTEGER);
    CREATE TEMP TABLE late_lists (id INTEGER, key TEXT, string_value TEXT, int_value INTEGER,
        float_value REAL, bool_value INTEGER);
    CREATE TEMP VIEW embeddings AS
        SELECT id, segment_id, embedding_id, seq_id FROM main.embeddings
        WHERE id NOT IN (SELECT id FROM replaced) UNION ALL SELECT * FROM late_rows;
    CREATE TEMP VIEW embedding_metadata AS SELECT * FROM main.embedding_metadata
        WHERE id NOT IN (SELECT id FROM replaced) UNION ALL SELECT * FROM late_values;
    CREATE TEMP VIEW embedding_metadata_array AS
        SELECT *, rowid AS rowid FROM {lists}
        WHERE id NOT IN (SELECT id FROM replaced) UNION ALL SELECT *, rowid FROM late_lists;
"""
_FIND = "SELECT id FROM embeddings WHERE segment_id = ? AND embedding_id = ?"
_INSERT = """
    INSERT INTO late_rows SELECT 1 + max(coalesce((SELECT max(id) FROM main.embeddings), 0),
        coalesce((SELECT max(id) FROM late_rows), 0)), ?, ?, ? RETURNING id
"""
_REPLACE = "INSERT OR IGNORE INTO replaced SELECT id FROM main.embeddings WHERE id = ?"
_COPY = (
    """INSERT INTO late_rows
        SELECT id, segment_id, embedding_id, seq_id FROM main.embeddings WHERE id = ?""",
    "INSERT INTO late_values SELECT * FROM main.embedding_metadata WHERE id = ?",
    """INSERT INTO late_lists
        SELECT * FROM {lists} WHERE id = ? ORDER BY rowid""",
)
_DELETE = (
    "DELETE FROM late_rows WHERE id = ?",
    "DELETE FROM late_values WHERE id = ?",
    "DELETE FROM late_lists WHERE id = ?",
)
_UNSET = (
    "DELETE FROM late_values WHERE id = ? AND key = ?",
    "DELETE FROM late_lists WHERE id = ? AND key = ?",
)
_SET_VALUE = "INSERT INTO late_values VALUES (?, ?, ?, ?, ?, ?)"
_SET_LIST = "INSERT INTO late_lists VALUES (?, ?, ?, ?, ?, ?)"


@dataclass(slots=True)
class Logged:
    """Where the vector of a record is in the log.

    Attributes:
        exists: whether the record existed after the last entry; None if the log does not tell.
        entries: those of which one has the vector.
        maybe_older: whether the vector may also be older than the log.
    """

    exists: bool | None = None
    entries: list[int] = field(default_factory=list)
    maybe_older: bool = True


def vectors_by_log(log: Iterable[tuple[int, int, str, bool]]) -> dict[str, Logged]:
    """Where the vectors are that the index has after these entries, by id.

    Chroma logs an add of an id that exists, and an update of one that does not, and ignores both.
    What another program writes keeps the checksum of the vector before, so the log counts.

    Args:
        log: number, operation, id, and whether there is a vector, of each entry.
    """
    found: dict[str, Logged] = {}
    for number, operation, record_id, has_vector in log:
        one = found.setdefault(record_id, Logged())
        if operation == DELETE:
            found[record_id] = Logged(exists=False, maybe_older=False)
        elif operation == UPSERT or (operation == ADD and one.exists is False):
            entries = [number] if has_vector else one.entries
            found[record_id] = Logged(True, entries, one.maybe_older and not has_vector)
        elif operation == ADD and one.exists is None:
            one.exists, one.entries = True, [*one.entries, number]
        elif operation == UPDATE and one.exists is not False and has_vector:
            found[record_id] = Logged(one.exists, [number], maybe_older=False)
    return found


def replay_rows(sql: sqlite3.Connection) -> int:
    """Cover the tables of rows with temporary views that include the unapplied log entries.

    Returns:
        How many entries the log has that are not in the rows.
    """
    sql.executescript(_NO_OVERLAY)
    unapplied = sql.execute(_UNAPPLIED).fetchall()
    lists = f"main.{LISTS}"
    if sql.execute("SELECT 1 FROM temp.sqlite_master WHERE name = ?", (NO_LISTS,)).fetchone():
        lists = NO_LISTS
    if unapplied:
        sql.executescript(_OVERLAY.format(lists=lists))
    elif lists == NO_LISTS:
        sql.execute(SHOW_NO_LISTS)
    for seq_id, segment, operation, record_id, metadata in unapplied:
        row = sql.execute(_FIND, (segment, record_id)).fetchone()
        if row is None and operation in (ADD, UPSERT):
            row = sql.execute(_INSERT, (segment, record_id, seq_id)).fetchone()
        elif row is None or operation == ADD:
            continue
        elif sql.execute(_REPLACE, row).rowcount:
            _each(sql, [statement.format(lists=lists) for statement in _COPY], row)
        if operation == DELETE:
            _each(sql, _DELETE, row)
        else:
            for key, value in _changes(metadata).items():
                _set(sql, row[0], key, value)
    return len(unapplied)


def _changes(metadata: object) -> dict[str, Any]:
    """The metadata that an entry of the log sets.

    Raises:
        sqlite3.DatabaseError: it can't be read.
    """
    if not metadata:
        return {}
    try:
        found = json.loads(metadata)  # type: ignore[arg-type]
    except (ValueError, TypeError, RecursionError) as error:
        raise sqlite3.DatabaseError("the metadata of an entry is not valid JSON") from error
    if not isinstance(found, dict):
        raise sqlite3.DatabaseError("the metadata of an entry is not a JSON object")
    return found


def _set(sql: sqlite3.Connection, row: int, key: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
    _each(sql, _UNSET, (row, key))
    for one in value if isinstance(value, list) else [value]:
        if one is not None:
            columns = [one if type(one) is kind else None for kind in (str, int, float, bool)]
            sql.execute(_SET_LIST if isinstance(value, list) else _SET_VALUE, (row, key, *columns))


def _each(sql: sqlite3.Connection, statements: Iterable[str], values: tuple[Any, ...]) -> None:
    for statement in statements:
        sql.execute(statement, values)
