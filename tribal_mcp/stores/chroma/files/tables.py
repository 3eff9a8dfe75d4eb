"""Reads the rows of Chroma's own database: collections, ids, documents, metadata and counts.

Each query uses one of Chroma's own indexes, so that 100,000 memories are counted in a fraction of a
second and nothing is held in memory. Reads outside `snapshot` are consistent as long as the caller
holds the folder's lock. (Over 300 lines: every query on the same few tables is here.)
"""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from tribal_mcp.errors import StoreDamaged, StoreLocked
from tribal_mcp.stores.base import in_parts
from tribal_mcp.stores.chroma.files.log import replay_rows
from tribal_mcp.stores.chroma.files.schema import LISTS, NO_NUMBER, adapt_layout, read_collections
from tribal_mcp.stores.errors import CHECK, RESCUE, is_damage
from tribal_mcp.stores.raw import RawCollection, UnknownLayout
from tribal_mcp.stores.record import AS_JSON, OTHER_MODEL, OTHER_TIMES, STORED, named_models
from tribal_mcp.stores.search import UNKNOWN, Tally, latest_first, most_first

DOCUMENT = "chroma:document"
_BUSY_S = 30.0
_AT_ONCE = 1000
_TRUTHS = {int, type(None)}

_COUNT_BY_TAG = """
    SELECT string_value, count(DISTINCT id) FROM embedding_metadata_array
    WHERE key = 'tags' AND string_value IS NOT NULL AND id IN ({rows}) GROUP BY string_value
"""
_COUNT_BY_SOURCE = """
    SELECT string_value, count(*) FROM embedding_metadata
    WHERE key = 'source_type' AND string_value IS NOT NULL AND id IN ({rows}) GROUP BY string_value
"""
# Times before 1970 are rounded down to whole seconds, too. An unknown date is stored as 0.
_COUNT_BY_MONTH = """
    SELECT strftime('%Y-%m', (int_value - 999999 * (int_value < 0)) / 1000000, 'unixepoch'),
    count(*) FROM embedding_metadata
    WHERE key = 'created_at_us' AND int_value != 0 AND id IN ({rows}) GROUP BY 1
"""
_STORED_SINCE = """
    SELECT embedding_id FROM embeddings e WHERE segment_id = ? AND coalesce(
    (SELECT int_value FROM embedding_metadata m WHERE m.id = e.id AND key = ?),
    (SELECT max(int_value) FROM embedding_metadata m WHERE m.id = e.id
    AND key IN (SELECT value FROM json_each(?))), ?) >= ? ORDER BY id
"""
_OTHER_MODELS = """
    SELECT embedding_id, j.string_value FROM embedding_metadata m JOIN embeddings e
    ON e.id = m.id JOIN embedding_metadata j ON j.id = m.id AND j.key = ?
    WHERE m.key = ? AND m.int_value = 1 AND e.segment_id = ? ORDER BY e.id
"""

_NOT_ROLLED_BACK = {
    sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY,
    sqlite3.SQLITE_READONLY_CANTLOCK, sqlite3.SQLITE_READONLY_CANTINIT,
}  # fmt: skip


class Row(NamedTuple):
    """A record: its row, the log entry that wrote it last, and its id."""

    row: int
    written: int
    id: str


class Searchable(NamedTuple):
    """What a search has to know of a record, as far as it has it."""

    content: str = ""
    created_us: int | None = None
    source: str | None = None
    tags: Sequence[str] = ()


class NotRolledBack(StoreDamaged):
    """A killed writer left a transaction that has to be rolled back before the database is read."""


OnLogDamage = Callable[[str, sqlite3.DatabaseError], None]
"""Called with the name of the damaged part of the log; returns to go on without that part."""


def raise_error(part: str, error: sqlite3.DatabaseError) -> None:
    """An `OnLogDamage` that stops the reading."""
    raise StoreDamaged(f"{part} can't be read: {error}.", CHECK, RESCUE) from error


class ChromaTables:
    """The database of one Chroma folder, open for reading.

    Args:
        folder: the Chroma folder.
        locked: whether the caller holds the folder's lock. If not, only rows that are in the
            database, not in its log, are seen.
        rollback: whether to roll back the transaction of a killed writer, which writes.
        on_log_damage: what to do if the log can't be read; by default, raise the error.

    Raises:
        UnknownLayout: another version of Chroma wrote the database.
        NotRolledBack: a killed writer left a transaction, and it was not to be rolled back.
        StoreLocked: another program, without our lock, has been writing for 30 seconds.
        StoreDamaged: the database can't be read.
    """

    def __init__(
        self,
        folder: Path,
        *,
        locked: bool = True,
        rollback: bool = True,
        on_log_damage: OnLogDamage = raise_error,
    ) -> None:
        self.folder = folder
        self._locked = locked
        self._on_log_damage = on_log_damage
        self._collections: tuple[int, list[RawCollection]] = (-1, [])
        self._known_counts: dict[str, tuple[int, int]] = {}
        mode = "rw" if locked and rollback else "ro"
        uri = f"{(folder / 'chroma.sqlite3').absolute().as_uri()}?mode={mode}"
        try:
            self.sql = sqlite3.connect(
                uri, uri=True, check_same_thread=False, timeout=_BUSY_S, isolation_level=None
            )
            self.sql.execute("PRAGMA temp_store = MEMORY")
            self.older = adapt_layout(self.sql)
            self.sql.execute("PRAGMA query_only = 1")
        except UnknownLayout:
            self.close()
            raise
        except sqlite3.DatabaseError as error:
            self.close()
            code = getattr(error, "sqlite_errorcode", 0)
            if code in _NOT_ROLLED_BACK:
                raise NotRolledBack(
                    "A program was killed while it wrote to the Chroma database, and left an "
                    "unfinished transaction."
                ) from error
            if code & 0xFF == sqlite3.SQLITE_BUSY:
                raise StoreLocked(
                    "Another program is writing to the Chroma folder. Try again later."
                ) from error
            if not is_damage(error, folder):
                raise
            raise StoreDamaged(f"The Chroma database can't be read: {error}.", RESCUE) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        if hasattr(self, "sql"):
            self.sql.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read from the database within the block is of one moment."""
        self.sql.execute("BEGIN")
        try:
            yield
        finally:
            self.sql.execute("ROLLBACK")

    def version(self) -> int:
        """A number that changes with each change by another connection."""
        return self._number("PRAGMA data_version") or 0

    def _number(self, query: str, *values: object) -> int | None:
        """The number that a query finds, if any."""
        row = self.sql.execute(query, values).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def collection(self, name: str) -> RawCollection | None:
        """The collection of that name, or None."""
        return next((c for c in self.collections() if c.name == name), None)

    def collections(self) -> list[RawCollection]:
        """All collections of Chroma's default database, by name."""
        version = self.version()
        if self._collections[0] != version:
            if self._locked:
                self._replay_log()
            self._collections = (version, read_collections(self.sql))
        return self._collections[1]

    def _replay_log(self) -> None:
        """Show the rows as Chroma will leave them when it next opens the folder."""
        self.sql.execute("PRAGMA query_only = 0")  # temporary views are written
        try:
            replay_rows(self.sql)
        except sqlite3.DatabaseError as error:
            if not is_damage(error, self.folder):
                raise
            self._on_log_damage("The log", error)
        finally:
            self.sql.execute("PRAGMA query_only = 1")

    def segments(self) -> set[str]:
        """The index directories that the collections of all databases own."""
        return {row[0] for row in self.sql.execute("SELECT id FROM segments")}

    def vector_segment(self, collection: RawCollection) -> tuple[str, int | None]:
        """The collection's index directory, and the last log entry in its index, if any."""
        segment = self.segment(collection, "VECTOR")
        return segment, self.applied(segment)

    def applied(self, segment: str) -> int | None:
        """The last log entry that a segment has applied, if any."""
        return self._number("SELECT seq_id FROM max_seq_id WHERE segment_id = ?", segment)

    def replayed_from(self, applied: int | None) -> int:
        """The last log entry that need not be replayed on the index; -1 if all have to be.

        A number beyond the end of the log can't be true. Then the log is replayed from its start.
        """
        return -1 if applied is None or self.is_beyond_log(applied) else applied

    def is_beyond_log(self, applied: int) -> bool:
        """Whether neither the log nor any row reaches this entry, so that it can't be applied."""
        if applied < 0 or applied == NO_NUMBER:
            return True
        last = self.last_logged()
        return last is not None and applied > last and applied > self._last_row()

    def _last_row(self) -> int:
        query = "SELECT max(log_number(seq_id)) FROM main.embeddings WHERE log_number(seq_id) < ?"
        return self._number(query, NO_NUMBER) or 0

    def last_logged(self) -> int | None:
        """The last entry of the log, of all collections; None if it is empty."""
        return self._number("SELECT max(seq_id) FROM embeddings_queue")

    def first_logged(self, collection: RawCollection) -> int | None:
        """The first entry of the collection that the log still has."""
        query = "SELECT min(seq_id) FROM embeddings_queue WHERE topic LIKE ?"
        return self._number(query, f"%/{collection.id}")

    def unapplied(self, collection: RawCollection) -> int:
        """How many log entries are not in the rows yet, because their writer was killed."""
        segment = self.segment(collection)
        applied = self.applied(segment)
        if applied is not None and self.is_beyond_log(applied):
            applied = self.last_written(segment)
        query = "SELECT count(*) FROM embeddings_queue WHERE seq_id > ? AND topic LIKE ?"
        begin = -1 if applied is None else applied
        return self._number(query, begin, f"%/{collection.id}") or 0

    def last_written(self, segment: str) -> int:
        """The last log entry that is known to be in the rows of the segment."""
        found = self._number(
            "SELECT max(log_number(seq_id)) FROM main.embeddings "
            "WHERE segment_id = ? AND log_number(seq_id) < ?",
            segment,
            NO_NUMBER,
        )
        return max(0, found or 0)

    def last_applied(self) -> int:
        """The last log entry that any segment has applied."""
        query = "SELECT max(seq_id) FROM max_seq_id WHERE segment_id IN (SELECT id FROM segments)"
        return self._number(query) or 0

    def wrong_marks(self) -> list[tuple[str, str]]:
        """The segments, with their scope, whose last applied log entry can't be true."""
        return [
            (segment, scope)
            for segment, scope, applied in self.sql.execute(
                "SELECT s.id, s.scope, m.seq_id FROM segments s "
                "JOIN max_seq_id m ON m.segment_id = s.id ORDER BY s.id"
            ).fetchall()
            if self.is_beyond_log(applied)
        ]

    def segment(self, collection: RawCollection, scope: str = "METADATA") -> str:
        """The id of the collection's segment for its rows (METADATA) or its index (VECTOR)."""
        row = self.sql.execute(
            "SELECT id FROM segments WHERE collection = ? AND scope = ?", (collection.id, scope)
        ).fetchone()
        if row is None:
            raise UnknownLayout(f"The collection {collection.name!r} has no {scope} segment.")
        return str(row[0])

    def count(self, collection: RawCollection) -> int:
        """How many records the collection has."""
        segment, version = self.segment(collection), self.version()
        if self._known_counts.get(segment, (-1, 0))[0] != version:
            query = "SELECT count(*) FROM embeddings WHERE segment_id = ?"
            self._known_counts[segment] = version, self._number(query, segment) or 0
        return self._known_counts[segment][1]

    def ids(self, collection: RawCollection) -> list[str]:
        """The ids of all records, oldest insertion first."""
        return self.matching_ids(collection)

    def existing(self, collection: RawCollection, ids: Sequence[str]) -> list[str]:
        """Those of the ids that have a record."""
        return list(self.rows(collection, ids))

    def matching_ids(
        self,
        collection: RawCollection,
        tags: Sequence[str] = (),
        from_us: int | None = None,
        to_us: int | None = None,
    ) -> list[str]:
        """The ids of records with any of the tags and a date in the range, oldest first.

        Args:
            collection: where to look.
            tags: compared with the list under `tags`; an empty list matches every record.
            from_us: the least `created_at_us`.
            to_us: the greatest `created_at_us`.
        """
        # Rows lie in the requested order; an index would have them sorted in memory.
        query = "SELECT embedding_id FROM embeddings NOT INDEXED WHERE segment_id = ?"
        condition, values = _condition(tags, from_us, to_us)
        values = [self.segment(collection), *values]
        return _ids(self.sql.execute(f"{query}{condition} ORDER BY id", values).fetchall())

    def newest(
        self,
        collections: Sequence[RawCollection],
        tags: Sequence[str],
        from_us: int | None,
        to_us: int | None,
        *,
        skip: int,
        count: int,
    ) -> tuple[list[str], int]:
        """The ids of the matching records created last, newest first, and how many match.

        Args:
            collections: where to look.
            tags: as in `matching_ids`, like the dates.
            from_us: the least `created_at_us`.
            to_us: the greatest `created_at_us`.
            skip: how many to leave out at the beginning.
            count: the most to return.
        """
        segments = [self.segment(collection) for collection in collections]
        condition, values = _condition(tags, from_us, to_us)
        one_of = f"segment_id IN ({placeholders(segments)})"
        if not values:
            found = self.sql.execute(
                "SELECT embedding_id FROM embedding_metadata m CROSS JOIN embeddings e "  # noqa: S608
                "ON e.id = m.id WHERE key = 'created_at_us' AND int_value IS NOT NULL "
                f"AND {one_of} ORDER BY int_value DESC, e.id DESC LIMIT ? OFFSET ?",
                [*segments, count, skip],
            ).fetchall()
            if len(found) == count:  # else, those without a date follow
                return _ids(found), sum(map(self.count, collections))
        which = f"FROM embeddings WHERE {one_of}{condition}"
        values = [*segments, *values]
        total = self.sql.execute(f"SELECT count(*) {which}", values).fetchone()[0]
        created = (
            "(SELECT int_value FROM embedding_metadata m "
            "WHERE m.id = embeddings.id AND key = 'created_at_us')"
        )
        query = f"SELECT embedding_id {which} ORDER BY {created} DESC, id DESC LIMIT ? OFFSET ?"
        return _ids(self.sql.execute(query, [*values, count, skip]).fetchall()), int(total)

    def stored_since(self, collection: RawCollection, moment_us: int) -> list[str]:
        """The ids of records written since then; without a time of writing, the last date counts.

        A record without any date is included.
        """
        segment = self.segment(collection)
        values = (segment, STORED, json.dumps(OTHER_TIMES), moment_us, moment_us)
        return _ids(self.sql.execute(_STORED_SINCE, values).fetchall())

    def written_after(self, collection: RawCollection, number: int) -> list[str]:
        """The ids of records that were written after that entry of the log."""
        query = (
            "SELECT embedding_id FROM embeddings WHERE segment_id = ? AND log_number(seq_id) > ?"
        )
        return _ids(self.sql.execute(query, (self.segment(collection), number)).fetchall())

    def other_models(self, collection: RawCollection) -> dict[str, str]:
        """The models that records name for their vectors, by id."""
        return named_models(
            self.sql.execute(_OTHER_MODELS, (AS_JSON, OTHER_MODEL, self.segment(collection)))
        )

    def unrecorded(self, collection: RawCollection) -> int:
        """How many records have no time of writing."""
        query = (
            "SELECT count(*) FROM embeddings e WHERE segment_id = ? AND NOT EXISTS "
            "(SELECT 1 FROM embedding_metadata m WHERE m.id = e.id AND key = ?)"
        )
        return self._number(query, self.segment(collection), STORED) or 0

    def numbered(self, collection: RawCollection, ids: Sequence[str] | None = None) -> list[Row]:
        """The rows of those ids, or of all records."""
        segment = self.segment(collection)
        query = "SELECT id, log_number(seq_id), embedding_id FROM embeddings WHERE segment_id = ?"
        if ids is None:
            return _rows(
                self.sql.execute(query.replace(" WHERE", " NOT INDEXED WHERE"), (segment,))
            )
        found = list[Row]()
        for part in in_parts(ids, _AT_ONCE):
            one_of = f"{query} AND embedding_id IN ({placeholders(part)})"
            found += _rows(self.sql.execute(one_of, (segment, *part)))
        return found

    def numbered_rows(self, rows: Sequence[int]) -> list[Row]:
        """Those of the rows that there are."""
        found = list[Row]()
        for part in in_parts(rows, _AT_ONCE):
            query = "SELECT id, log_number(seq_id), embedding_id FROM embeddings"
            one_of = f"{query} WHERE id IN ({placeholders(part)})"
            found += _rows(self.sql.execute(one_of, part))
        return found

    def log_entry(self, number: int) -> str | None:
        """A digest of an entry of the log; None if the log does not have it."""
        entry = self.sql.execute(
            "SELECT * FROM embeddings_queue WHERE seq_id = ?", (number,)
        ).fetchone()
        return None if entry is None else _digest(entry)

    def digests(self, rows: Sequence[int]) -> dict[int, str]:
        """A digest of the id and the fields of the records in those rows, as far as they exist."""
        ids = {row.row: row.id for row in self.numbered_rows(rows)}
        fields: dict[int, list[object]] = {row: [memory_id] for row, memory_id in ids.items()}
        for row, *field in self.sql.execute(
            "SELECT id, key, string_value, int_value, float_value, bool_value "  # noqa: S608
            f"FROM embedding_metadata WHERE id IN ({placeholders(rows)}) ORDER BY id, key",
            rows,
        ):
            if row in fields:
                fields[row].append(field)
        return {row: _digest(found) for row, found in fields.items()}

    def ids_of(self, rows: Sequence[int]) -> list[str]:
        """The ids of the records in those rows, in that order.

        Raises:
            KeyError: a row does not exist.
        """
        known = {found.row: found.id for found in self.numbered_rows(rows)}
        return [known[row] for row in rows]

    def changed_since(self, collection: RawCollection, entry: int) -> list[str] | None:
        """The ids that the log changes after an entry; None if it does not reach back so far."""
        topic = f"%/{collection.id}"
        reaches_back = self.sql.execute(
            "SELECT 1 FROM embeddings_queue WHERE topic LIKE ? AND seq_id <= ? LIMIT 1",
            (topic, entry),
        ).fetchone()
        if not reaches_back:
            return None
        return _ids(
            self.sql.execute(
                "SELECT DISTINCT id FROM embeddings_queue WHERE topic LIKE ? AND seq_id > ?",
                (topic, entry),
            ).fetchall()
        )

    def searchable(self, rows: Sequence[int]) -> dict[int, Searchable]:
        """What a search has to know of the records in those rows."""
        found: dict[int, dict[str, Any]] = {row: {} for row in rows}
        one_of = f"id IN ({placeholders(rows)})"
        for row, key, text, number in self.sql.execute(
            "SELECT id, key, string_value, int_value FROM embedding_metadata "  # noqa: S608 - placeholders
            f"WHERE {one_of} AND key IN (?, 'created_at_us', 'source_type')",
            (*rows, DOCUMENT),
        ).fetchall():
            if not isinstance(text, str | None) or not isinstance(number, int | None):
                raise _wrong_type(f"The field {str(key)!r:.80} of a record")
            if key == DOCUMENT:
                found[row]["content"] = text or ""
            elif key == "source_type":
                found[row]["source"] = text
            else:
                found[row]["created_us"] = number
        for row, tag in self.sql.execute(
            "SELECT DISTINCT id, string_value FROM embedding_metadata_array "  # noqa: S608
            f"WHERE {one_of} AND key = 'tags' AND typeof(string_value) = 'text'",
            rows,
        ).fetchall():
            found[row].setdefault("tags", []).append(tag)
        return {row: Searchable(**fields) for row, fields in found.items()}

    def texts(self, collection: RawCollection, ids: Sequence[str]) -> dict[str, str]:
        """The documents of those ids in that order; missing records are left out."""
        # A cursor in a variable would keep the database locked after an error.
        rows = self.sql.execute(
            "SELECT e.embedding_id, m.string_value FROM embeddings AS e "  # noqa: S608 - placeholders
            "LEFT JOIN embedding_metadata AS m ON m.id = e.id AND m.key = ? "
            f"WHERE e.segment_id = ? AND e.embedding_id IN ({placeholders(ids)})",
            (DOCUMENT, self.segment(collection), *ids),
        ).fetchall()
        found = dict(rows)
        if not all(isinstance(text, str | None) for text in found.values()):
            raise _wrong_type("The text of a record")
        return {i: found[i] or "" for i in ids if i in found}

    def with_value(
        self, collection: RawCollection, key: str, values: Sequence[str]
    ) -> list[tuple[str, str]]:
        """Value and id of each record that has one of the values under the key, oldest first."""
        return self.sql.execute(
            "SELECT m.string_value, e.embedding_id FROM embedding_metadata AS m "  # noqa: S608
            "JOIN embeddings AS e ON e.id = m.id WHERE m.key = ? AND e.segment_id = ? "
            f"AND m.string_value IN ({placeholders(values)}) ORDER BY e.id",
            (key, self.segment(collection), *values),
        ).fetchall()

    def tally(self, collections: Sequence[RawCollection]) -> Tally:
        """Counts of the records of all the collections together."""
        segments = [self.segment(collection) for collection in collections]
        total = sum(map(self.count, collections))
        sources = self._counts(_COUNT_BY_SOURCE, segments)
        sources[UNKNOWN] += total - sources.total()
        months = self._counts(_COUNT_BY_MONTH, segments)
        for month in [m for m in months if m < "0001"]:  # dates outside Python's calendar
            del months[month]
        months[UNKNOWN] += total - months.total()
        return Tally(
            most_first(self._counts(_COUNT_BY_TAG, segments)),
            most_first(+sources),
            latest_first(+months),
        )

    def _counts(self, query: str, segments: list[str]) -> Counter[str]:
        rows = f"SELECT id FROM embeddings WHERE segment_id IN ({placeholders(segments)})"  # noqa: S608
        counted: Any = self.sql.execute(query.format(rows=rows), segments).fetchall()
        return Counter({name: count for name, count in counted if isinstance(name, str)})

    def rows(
        self,
        collection: RawCollection,
        ids: Sequence[str],
        tags: Sequence[str] = (),
        from_us: int | None = None,
        to_us: int | None = None,
    ) -> dict[str, int]:
        """The row of each of those ids that has one; with a filter as in `matching_ids`."""
        condition, values = _condition(tags, from_us, to_us, of_few=True)
        return dict(
            self.sql.execute(
                "SELECT embedding_id, id FROM embeddings WHERE segment_id = ? "  # noqa: S608 - placeholders
                f"AND embedding_id IN ({placeholders(ids)}){condition}",
                (self.segment(collection), *ids, *values),
            ).fetchall()
        )

    def values(self, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
        """The metadata of those rows, with their documents under `DOCUMENT`."""
        values: dict[int, dict[str, Any]] = {row: {} for row in rows}
        first, last = min(rows), max(rows)
        if last - first < 2 * len(rows):  # a range is read faster than a list of rows
            which, bounds = "BETWEEN ? AND ?", [first, last]
        else:
            which, bounds = f"IN ({placeholders(rows)})", list(rows)
        for table, order in (("embedding_metadata", ""), (LISTS, " ORDER BY rowid")):
            for row, key, value, truth in self.sql.execute(
                "SELECT id, key, coalesce(string_value, int_value, float_value), bool_value "  # noqa: S608
                f"FROM {table} WHERE id {which}{order}",
                bounds,
            ):
                if row not in values:
                    continue
                if type(key) is not str or type(value) is bytes or type(truth) not in _TRUTHS:
                    raise _wrong_type(f"The field {str(key)!r:.80} of a record")
                read = value if truth is None else bool(truth)
                if table == LISTS:
                    values[row].setdefault(key, []).append(read)
                else:
                    values[row][key] = read
        return values


def _condition(
    tags: Sequence[str], from_us: int | None, to_us: int | None, *, of_few: bool = False
) -> tuple[str, list[Any]]:
    """The condition on records of `matching_ids`, to append to a query, with its values.

    Args:
        tags: as there.
        from_us: as there.
        to_us: as there.
        of_few: whether to test each record, instead of finding all that match first.
    """
    condition, values = "", list[Any]()
    test = "id IN (SELECT id FROM {0} WHERE {1})"
    if of_few:
        test = "EXISTS (SELECT 1 FROM {0} m WHERE m.id = embeddings.id AND {1})"
    if tags:
        # With a plus sign, SQLite does not search the whole index of values.
        apart = [tag for tag in tags if "\0" in tag]  # json_each ends a text at that character
        listed = "SELECT value FROM json_each(?)"
        if apart:
            listed += f" UNION ALL VALUES {', '.join(['(?)'] * len(apart))}"
        one_of = f"key = 'tags' AND +string_value IN ({listed})"
        one_of = one_of if of_few else one_of.replace("+", "")
        condition += f" AND {test.format('embedding_metadata_array', one_of)}"
        values += [json.dumps([tag for tag in tags if tag not in apart]), *apart]
    if from_us is not None or to_us is not None:
        between = "key = 'created_at_us' AND int_value BETWEEN ? AND ?"
        condition += f" AND {test.format('embedding_metadata', between)}"
        values += [-(1 << 63) if from_us is None else from_us]
        values += [(1 << 63) - 1 if to_us is None else to_us]
    return condition, values


def _ids(rows: list[tuple[Any, ...]]) -> list[str]:
    ids = [row[0] for row in rows]
    if not all(type(i) is str for i in ids):
        raise _wrong_type("The id of a record")
    return ids


def _rows(found: Iterable[tuple[int, int, Any]]) -> list[Row]:
    rows = [Row(*one) for one in found]
    _ids([(row.id,) for row in rows])
    return rows


def _digest(value: object) -> str:
    data = repr(value).encode(errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _wrong_type(what: str) -> StoreDamaged:
    return StoreDamaged(f"{what} is stored with a wrong type.", CHECK, RESCUE)


def placeholders(values: Sequence[Any] | dict[int, str]) -> str:
    """As many question marks as there are values, for an SQL query."""
    return ",".join("?" * len(values))
