"""A readable copy of a folder whose database is damaged: for rescues, so nothing is changed.

If values of the database have wrong types, they are corrected in a copy. If it can't be read with
SQLite, or tables are missing, a new database is made of the rows in its pages. The index files are
only linked.
"""

import json
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

from tribal_mcp.errors import NoSpace, StoreDamaged
from tribal_mcp.stores.chroma.files.hnsw import stored_vectors
from tribal_mcp.stores.chroma.files.pages import rebuild_database
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.files.schema import log_number
from tribal_mcp.stores.chroma.files.value_types import correct_types, wrong_types
from tribal_mcp.stores.chroma.migration import DATABASE
from tribal_mcp.stores.errors import is_damage
from tribal_mcp.stores.raw import RawCollection, UnknownLayout
from tribal_mcp.stores.record import OURS

_SET_CONFIGURATION = "UPDATE collections SET config_json_str = ? WHERE id = ?"
_REMOVE_SCHEMA = "UPDATE collections SET schema_str = NULL WHERE id = ?"
_UNIT = 1e-3
_LEAST_NORM = 1e-9
_SAMPLE = 1000
_SEGMENT = "urn:chroma:segment/vector/hnsw-local-persisted"


class ReadableFolder:
    """The folder itself if its database can be read, else a private copy of the database.

    Args:
        folder: the Chroma folder.
        from_pages: make the database of its pages, even if SQLite can read it.

    Attributes:
        path: the folder to read.
        from_pages: whether the database was made of its pages.
        damage: what is damaged, in sentences.

    Raises:
        StoreDamaged: nothing of the database can be read.
        NoSpace: there is too little space for a temporary copy.
    """

    def __init__(self, folder: Path, *, from_pages: bool = False) -> None:
        self.damage: list[str] = []
        self.path = folder
        self.from_pages = False
        self._private: Path | None = None
        if from_pages or not _is_sound(folder):
            self._private = Path(tempfile.mkdtemp(prefix="tribal-mcp-"))
            try:
                self._make_private(folder, self._private, from_pages=from_pages)
            except BaseException:
                self.close()
                raise
            self.path = self._private

    def close(self) -> None:
        """Remove the private copy."""
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None

    def _make_private(self, folder: Path, private: Path, *, from_pages: bool) -> None:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink() and path.name != DATABASE:
                (private / path.name).symlink_to(path, target_is_directory=True)
        database = private / DATABASE
        if from_pages or not self._copy(folder, private):
            database.unlink(missing_ok=True)
            if not rebuild_database(folder / DATABASE, database):
                raise StoreDamaged("Nothing in the Chroma database can be read.")
            self.from_pages = True
            self.damage.append(
                "The database is damaged. It was read page by page, so rows that had been "
                "deleted may be among those that were found."
            )
        with closing(sqlite3.connect(database, isolation_level=None)) as sql:
            sql.execute("BEGIN")
            self.damage += [
                f"{wrong}; they were corrected or left out." for wrong in correct_types(sql)
            ]
            _complete_segments(sql)
            sql.execute("COMMIT")
        self._correct_settings(private)

    def _copy(self, folder: Path, private: Path) -> bool:
        """Copy the database if SQLite can read the copy and knows its layout."""
        source = folder / DATABASE
        try:
            if source.stat().st_size > shutil.disk_usage(private).free:
                raise NoSpace(
                    "The directory for temporary files has too little space for a copy of the "
                    "database. Free some space and try again."
                )
            for name in (DATABASE, f"{DATABASE}-journal"):
                with suppress(FileNotFoundError):
                    shutil.copyfile(folder / name, private / name)
            with ChromaFiles(private) as files:
                files.sql.execute("SELECT count(*) FROM embedding_metadata").fetchone()
                files.collections()
                wrong_types(files.sql)
                return True
        except StoreDamaged:
            return False
        except sqlite3.DatabaseError as error:
            if not is_damage(error, private):
                raise
            return False
        except IsADirectoryError:
            return False

    def _correct_settings(self, private: Path) -> None:
        """Find out the dimensions and the metric of a collection whose settings can't be read."""
        changes: list[tuple[str, tuple[object, ...]]] = []
        with ChromaFiles(private, on_log_damage=lambda *_: None) as files:
            for raw in files.collections():
                segment, _ = files.vector_segment(raw)
                dimension = files.stored_dimension(raw)
                if dimension and dimension != raw.dimension:
                    changes.append(
                        ("UPDATE collections SET dimension = ? WHERE id = ?", (dimension, raw.id))
                    )
                    self.damage.append(f"The recorded dimensions of {raw.name!r} are wrong.")
                if not _has_metric(raw):
                    space = _metric(raw, private / segment)
                    settings = {"vector_index": {"hnsw": {"space": space}}}
                    changes.append((_SET_CONFIGURATION, (json.dumps(settings), raw.id)))
                    changes.append((_REMOVE_SCHEMA, (raw.id,)))
                    self.damage.append(f"The stored settings of {raw.name!r} can't be read.")
        with closing(sqlite3.connect(private / DATABASE)) as sql, sql:
            for statement, values in changes:
                with suppress(sqlite3.OperationalError):  # an older layout has other columns
                    sql.execute(statement, values)


def _is_sound(folder: Path) -> bool:
    try:
        with ChromaFiles(folder, rollback=False) as files:
            if not all(_is_readable(files, raw) for raw in files.collections()):
                return False
            try:
                return not wrong_types(files.sql)
            except sqlite3.DatabaseError as error:
                if not is_damage(error, folder):
                    raise
                return True  # some pages are damaged: rows are read in ranges
    except StoreDamaged:
        return False
    except sqlite3.DatabaseError as error:
        if not is_damage(error, folder):
            raise
        return False


def _is_readable(files: ChromaFiles, raw: RawCollection) -> bool:
    files.segment(raw)
    return _has_metric(raw) and files.stored_dimension(raw) in (raw.dimension, None)


def _has_metric(raw: RawCollection) -> bool:
    try:
        return bool(raw.space)
    except UnknownLayout:
        return False


def _metric(raw: RawCollection, segment: Path) -> str:
    """The distance metric of a collection whose settings can't be read.

    Of cosine, l2 and ip only the first stores vectors divided by their norms; the other two are
    read in the same way.
    """
    import numpy as np

    found = stored_vectors(segment, _SAMPLE)
    if raw.legacy_space or OURS in raw.metadata or found is None:
        return raw.legacy_space or "l2"
    divided = np.all(np.abs(np.linalg.norm(found, axis=1) - 1) < _UNIT)
    try:
        norms = np.fromfile(segment / "length.bin", "<f4", len(found))
    except OSError:
        return "l2"
    plausible = np.all((norms > _LEAST_NORM) & (norms < 1 / _LEAST_NORM))  # else never written
    return "cosine" if divided and plausible and len(norms) == len(found) else "l2"


def _complete_segments(sql: sqlite3.Connection) -> None:
    """Give each collection a segment for its index, and its rows if these are known.

    The log tells to which collection the rows of an unknown segment belong.
    """
    sql.create_function("log_number", 1, log_number, deterministic=True)
    for scope in ("VECTOR", "METADATA"):
        missing = sql.execute(
            "SELECT id FROM collections WHERE id NOT IN "
            "(SELECT collection FROM segments WHERE scope = ?)",
            (scope,),
        ).fetchall()
        for (collection,) in missing:
            segment = str(uuid4())
            if scope == "METADATA":
                row = sql.execute(
                    "SELECT e.segment_id FROM embeddings e JOIN embeddings_queue q "
                    "ON q.id = e.embedding_id AND q.seq_id = log_number(e.seq_id) "
                    "WHERE q.topic LIKE ? "
                    "AND e.segment_id NOT IN (SELECT id FROM segments) "
                    "GROUP BY e.segment_id ORDER BY count(*) DESC",
                    (f"%/{collection}",),
                ).fetchone()
                segment = row[0] if row else segment
            sql.execute(
                "INSERT INTO segments (id, type, scope, collection) VALUES (?, ?, ?, ?)",
                (segment, _SEGMENT, scope, collection),
            )
