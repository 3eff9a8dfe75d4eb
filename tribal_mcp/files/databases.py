"""Private, read-only snapshots of the SQLite databases of other programs."""

import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tribal_mcp.errors import BundleError
from tribal_mcp.files.origins import Origin
from tribal_mcp.portability.limits import MIB

_COPIES = 5
_SUFFIXES = ("", "-wal", "-journal")


class Database:
    """A private, read-only copy of a SQLite database. Views and triggers in it never run.

    Attributes:
        tables: the columns of each of its tables, in order. Views and virtual tables are not
            among them.
    """

    def __init__(self, connection: sqlite3.Connection, shown: str) -> None:
        self._connection = connection
        self._shown = shown
        self.tables: dict[str, list[str]] = {}
        for name, sql in self._rows(
            "SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name"
        ):
            if isinstance(name, str) and not str(sql).upper().startswith("CREATE VIRTUAL"):
                columns = self._rows(f"PRAGMA table_info({_quoted(name)})")
                self.tables[name] = [column[1] for column in columns]

    def rows(
        self, table: str, order: str = "rowid", where: Mapping[str, object] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The rows of a table as values by column; with `where`, those with these values.

        Raises:
            BundleError: the database is damaged.
        """
        columns = self.tables[table]
        listed = ", ".join(map(_quoted, columns))
        wanted = " AND ".join(f"{_quoted(name)} = ?" for name in where or ()) or "1"
        query = f"SELECT {listed} FROM {_quoted(table)} WHERE {wanted} ORDER BY {_quoted(order)}"  # noqa: S608 - names from the schema, quoted
        for row in self._rows(query, *(where or {}).values()):
            yield dict(zip(columns, row, strict=True))

    def _rows(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._connection.execute(sql, values)
        except (sqlite3.Error, UnicodeError) as error:
            raise BundleError(f"The database {self._shown!r:.80} can't be read: {error}.") from None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def database(origin: Origin, path: str) -> Iterator[Database]:
    """A snapshot of a database, with what a running program has only in its `-wal` file.

    Raises:
        BundleError: it is not a readable SQLite database, or is being written to.
    """
    with TemporaryDirectory(prefix="tribal-") as private:
        copy = Path(private) / "copy.db"
        copy_files(
            origin, {path + suffix: copy.with_name(copy.name + suffix) for suffix in _SUFFIXES}
        )
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.set_authorizer(_only_reading)
            yield Database(connection, path)


def copy_files(origin: Origin, targets: Mapping[str, Path]) -> None:
    """Copy files of an origin, all of one moment; those that don't exist are left out.

    Raises:
        BundleError: they keep changing.
    """
    for _ in range(_COPIES):
        before = [_state(origin, path) for path in targets]
        for path, target in targets.items():
            target.unlink(missing_ok=True)
            with suppress(KeyError), origin.open(path) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, MIB)
        if before == [_state(origin, path) for path in targets]:
            return
    first = next(iter(targets))
    raise BundleError(f"{first!r:.80} changes while it is read. Close the program that uses it.")


def _state(origin: Origin, path: str) -> tuple[int, int] | None:
    """Size and time of change of a file, if it is a file on disk."""
    with suppress(KeyError, OSError), origin.open(path) as file:
        found = os.fstat(file.fileno())
        return found.st_size, found.st_mtime_ns
    return None


def _only_reading(action: int, *_: object) -> int:
    allowed = {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_PRAGMA,
    }
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY
