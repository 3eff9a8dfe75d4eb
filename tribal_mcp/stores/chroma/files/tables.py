"""Reads the rows of Chroma's own database: collections, ids, documents and metadata.

What is read outside `snapshot` is of one moment as long as the folder's lock is in hand.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tribal_mcp.errors import StoreDamaged, StoreLocked
from tribal_mcp.stores.chroma.files.log import play_rows
from tribal_mcp.stores.chroma.files.schema import as_json, as_value, check_layout
from tribal_mcp.stores.raw import RawCollection, UnknownLayout
from tribal_mcp.stores.record import AS_JSON, OTHER_MODEL, OTHER_TIMES, STORED, named_models

DOCUMENT = "chroma:document"
_BUSY_S = 30.0


class ChromaTables:
    """The database of one Chroma folder, open for reading.

    Args:
        folder: the Chroma folder.
        locked: the folder's lock is in hand. Without it nothing is rolled back, and only what
            stands in the database may be read.

    Raises:
        UnknownLayout: they are not of the layout that is known.
        StoreLocked: another program, without our lock, does not come to an end of writing.
        StoreDamaged: the database can't be read.
    """

    def __init__(self, folder: Path, *, locked: bool = True) -> None:
        self._folder = folder
        self._locked = locked
        self._collections: tuple[int, list[RawCollection]] = (-1, [])
        # A writer that was killed may have left a transaction to roll back, which takes writing.
        uri = f"{(folder / 'chroma.sqlite3').absolute().as_uri()}?mode={'rw' if locked else 'ro'}"
        try:
            self._sql = sqlite3.connect(
                uri, uri=True, check_same_thread=False, timeout=_BUSY_S, isolation_level=None
            )
            self._sql.execute("PRAGMA temp_store = MEMORY")
            self._sql.execute("PRAGMA query_only = 1")
            check_layout(self._sql)
        except UnknownLayout:
            self.close()
            raise
        except sqlite3.DatabaseError as error:
            self.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise StoreLocked(
                    "Another program is writing to the Chroma folder. Try again when it is done."
                ) from error
            raise StoreDamaged(
                f"The Chroma database can't be read: {error}. Run `tribal-mcp rescue FILE`."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        if hasattr(self, "_sql"):
            self._sql.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is read from the database within the block is of one moment."""
        self._sql.execute("BEGIN")
        try:
            yield
        finally:
            self._sql.execute("ROLLBACK")

    def version(self) -> int:
        """Another number after each change that another connection made."""
        return int(self._sql.execute("PRAGMA data_version").fetchone()[0])

    def collection(self, name: str) -> RawCollection | None:
        """The collection of that name, or None."""
        return next((c for c in self.collections() if c.name == name), None)

    def collections(self) -> list[RawCollection]:
        """All collections of Chroma's default database, by name."""
        version = self.version()
        if self._collections[0] != version:
            if self._locked:
                self._play_log()
            self._collections = (version, self._read_collections())
        return self._collections[1]

    def _play_log(self) -> None:
        """Let the rows be seen as Chroma will leave them when it is next opened."""
        self._sql.execute("PRAGMA query_only = 0")  # temporary views are written
        try:
            play_rows(self._sql)
        finally:
            self._sql.execute("PRAGMA query_only = 1")

    def _read_collections(self) -> list[RawCollection]:
        rows = self._sql.execute(
            "SELECT c.id, c.name, dimension, config_json_str, schema_str, m.str_value "
            "FROM collections c JOIN databases d ON d.id = c.database_id "
            "LEFT JOIN segments v ON v.collection = c.id AND v.scope = 'VECTOR' "
            "LEFT JOIN segment_metadata m ON m.segment_id = v.id AND m.key = 'hnsw:space' "
            "WHERE d.name = 'default_database' AND d.tenant_id = 'default_tenant' ORDER BY c.name"
        ).fetchall()
        return [
            RawCollection(
                collection_id,
                name,
                dimension,
                {"configuration": as_json(configuration), "schema": as_json(schema)},
                {
                    key: as_value(*values)
                    for key, *values in self._sql.execute(
                        "SELECT key, str_value, int_value, float_value, bool_value "
                        "FROM collection_metadata WHERE collection_id = ?",
                        (collection_id,),
                    )
                },
                legacy_space,
            )
            for collection_id, name, dimension, configuration, schema, legacy_space in rows
        ]

    def segments(self) -> set[str]:
        """The folders that the collections of all databases own."""
        return {row[0] for row in self._sql.execute("SELECT id FROM segments")}

    def vector_segment(self, collection: RawCollection) -> tuple[str, int | None]:
        """The folder of its index, and the last entry of the log in it; None while none is."""
        segment = self._segment(collection, "VECTOR")
        return segment, self._applied(segment)

    def _applied(self, segment: str) -> int | None:
        row = self._sql.execute(
            "SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (segment,)
        ).fetchone()
        return int(row[0]) if row else None

    def unapplied(self, collection: RawCollection) -> int:
        """Entries of the log that are not in the rows yet: its writer was killed in between."""
        applied = self._applied(self._segment(collection, "METADATA"))
        row = self._sql.execute(
            "SELECT count(*) FROM embeddings_queue WHERE seq_id > ? AND topic LIKE ?",
            (-1 if applied is None else applied, f"%/{collection.id}"),
        ).fetchone()
        return int(row[0])

    def _segment(self, collection: RawCollection, scope: str) -> str:
        row = self._sql.execute(
            "SELECT id FROM segments WHERE collection = ? AND scope = ?", (collection.id, scope)
        ).fetchone()
        if row is None:
            raise UnknownLayout(f"The collection {collection.name!r} has no {scope} segment.")
        return str(row[0])

    def count(self, collection: RawCollection) -> int:
        """How many records it has."""
        segment = self._segment(collection, "METADATA")
        row = self._sql.execute("SELECT count(*) FROM embeddings WHERE segment_id = ?", (segment,))
        return int(row.fetchone()[0])

    def ids(self, collection: RawCollection) -> list[str]:
        """The ids of all records, oldest insertion first."""
        return self.matching_ids(collection)

    def existing(self, collection: RawCollection, ids: Sequence[str]) -> list[str]:
        """Those of the ids that are there."""
        return list(self._rows(collection, ids))

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
            tags: compared with the list under `tags`; none means any record.
            from_us: the least `created_at_us`.
            to_us: the greatest `created_at_us`.
        """
        # Rows lie in the order that is asked for; by the index they would be sorted in memory.
        sql = "SELECT embedding_id FROM embeddings NOT INDEXED WHERE segment_id = ?"
        values: list[Any] = [self._segment(collection, "METADATA")]
        if tags:
            sql += (
                " AND id IN (SELECT id FROM embedding_metadata_array WHERE key = 'tags' "
                "AND string_value IN (SELECT value FROM json_each(?)))"
            )
            values.append(json.dumps(list(tags)))
        if from_us is not None or to_us is not None:
            sql += (
                " AND id IN (SELECT id FROM embedding_metadata WHERE key = 'created_at_us' "
                "AND int_value BETWEEN ? AND ?)"
            )
            values += [-(1 << 63) if from_us is None else from_us]
            values += [(1 << 63) - 1 if to_us is None else to_us]
        return [row[0] for row in self._sql.execute(sql + " ORDER BY id", values)]

    def stored_since(self, collection: RawCollection, moment_us: int) -> list[str]:
        """The ids of records written from that time on; one that does not say has its last date."""
        segment = self._segment(collection, "METADATA")
        return [
            row[0]
            for row in self._sql.execute(
                "SELECT embedding_id FROM embeddings e WHERE segment_id = ? AND coalesce("
                "(SELECT int_value FROM embedding_metadata m WHERE m.id = e.id AND key = ?), "
                "(SELECT max(int_value) FROM embedding_metadata m WHERE m.id = e.id "
                "AND key IN (SELECT value FROM json_each(?))), ?) >= ? ORDER BY id",
                [segment, STORED, json.dumps(OTHER_TIMES), moment_us, moment_us],
            )
        ]

    def other_models(self, collection: RawCollection) -> dict[str, str]:
        """The models that records name for their vectors, by id."""
        rows = self._sql.execute(
            "SELECT embedding_id, j.string_value FROM embedding_metadata m JOIN embeddings e "
            "ON e.id = m.id JOIN embedding_metadata j ON j.id = m.id AND j.key = ? "
            "WHERE m.key = ? AND m.int_value = 1 AND e.segment_id = ? ORDER BY e.id",
            (AS_JSON, OTHER_MODEL, self._segment(collection, "METADATA")),
        )
        return named_models(rows)

    def unrecorded(self, collection: RawCollection) -> int:
        """How many records don't say when they were written."""
        row = self._sql.execute(
            "SELECT count(*) FROM embeddings e WHERE segment_id = ? AND NOT EXISTS "
            "(SELECT 1 FROM embedding_metadata m WHERE m.id = e.id AND key = ?)",
            (self._segment(collection, "METADATA"), STORED),
        )
        return int(row.fetchone()[0])

    def _rows(self, collection: RawCollection, ids: Sequence[str]) -> dict[str, int]:
        segment = self._segment(collection, "METADATA")
        return dict(
            self._sql.execute(
                "SELECT embedding_id, id FROM embeddings WHERE segment_id = ? "  # noqa: S608 - only places
                f"AND embedding_id IN ({places(ids)})",
                (segment, *ids),
            ).fetchall()
        )

    def _values(self, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
        values: dict[int, dict[str, Any]] = {row: {} for row in rows}
        first, last = min(rows), max(rows)
        if last - first < 2 * len(rows):  # a range is read faster than a list of rows
            which, bounds = "BETWEEN ? AND ?", [first, last]
        else:
            which, bounds = f"IN ({places(rows)})", list(rows)
        for row, key, value, truth in self._sql.execute(
            "SELECT id, key, coalesce(string_value, int_value, float_value), bool_value "  # noqa: S608
            f"FROM embedding_metadata WHERE id {which}",
            bounds,
        ):
            if row in values:
                values[row][key] = value if truth is None else bool(truth)
        for row, key, value, truth in self._sql.execute(
            "SELECT id, key, coalesce(string_value, int_value, float_value), bool_value "  # noqa: S608
            f"FROM embedding_metadata_array WHERE id {which} ORDER BY rowid",
            bounds,
        ):
            if row in values:
                values[row].setdefault(key, []).append(value if truth is None else bool(truth))
        return values


def places(values: Sequence[Any] | dict[int, str]) -> str:
    """As many question marks as there are values: what an SQL text here is built of."""
    return ",".join("?" * len(values))
