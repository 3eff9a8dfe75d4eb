"""Ways to damage a Chroma folder, for a campaign that no command may end in a traceback."""
# ruff: noqa: E501, S608 - the recipes are a table, one a line

import pickle
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

EVERY = 1 << 30
Damage = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to damage a folder, and what is provably left.

    Attributes:
        name: what is damaged, and how.
        damage: does it.
        lost_rows: how many of the memories may be missing from a rescue.
        lost_vectors: how many of the vectors may.
    """

    name: str
    damage: Damage
    lost_rows: int = 0
    lost_vectors: int = 0


def sql(*statements: str) -> Damage:
    """Run the statements; those about what this version does not have are left out."""

    def damage(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "chroma.sqlite3", isolation_level=None)) as database:
            database.execute("PRAGMA foreign_keys = OFF")
            for statement in statements:
                try:
                    database.execute(statement)
                except sqlite3.DatabaseError as error:
                    if "no such" not in str(error) and "NOT NULL" not in str(error):
                        raise

    return damage


def overwrite(name: str, start: float, data: bytes) -> Damage:
    """Overwrite bytes of the files of that name, from a part of their length on."""

    def damage(folder: Path) -> None:
        for path in _files(folder, name):
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.seek(int(size * start))
                file.write(data)
                file.truncate(size)

    return damage


def cut(name: str, part: float) -> Damage:
    """Cut the files of that name to a part of their length."""

    def damage(folder: Path) -> None:
        for path in _files(folder, name):
            with path.open("r+b") as file:
                file.truncate(int(path.stat().st_size * part))

    return damage


def replace(name: str, data: bytes) -> Damage:
    """Replace the files of that name."""

    def damage(folder: Path) -> None:
        for path in _files(folder, name):
            path.write_bytes(data)

    return damage


def remove(name: str) -> Damage:
    """Remove the files of that name."""

    def damage(folder: Path) -> None:
        for path in _files(folder, name):
            path.unlink()

    return damage


def beside(suffix: str) -> Damage:
    """Write noise to a file beside the database."""

    def damage(folder: Path) -> None:
        (folder / f"chroma.sqlite3{suffix}").write_bytes(NOISE)

    return damage


def each_index(change: Callable[[Path], None]) -> Damage:
    """Change each index directory."""

    def damage(folder: Path) -> None:
        for header in sorted(folder.glob("*/header.bin")):
            change(header.parent)

    return damage


def own(name: str, data: bytes) -> Damage:
    """Write a file of this program's own."""

    def damage(folder: Path) -> None:
        path = folder / "tribal-mcp" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return damage


def database_is_a_directory(folder: Path) -> None:
    """A directory in the place of the database."""
    (folder / "chroma.sqlite3").unlink()
    (folder / "chroma.sqlite3").mkdir()


def another_database(folder: Path) -> None:
    """A database that is not Chroma's."""
    (folder / "chroma.sqlite3").write_bytes(b"")
    sql("CREATE TABLE x (y)")(folder)


def _damage_backup(index: Path) -> None:
    own(f"guard/{index.name}", NOISE)(index.parent)


def _become_file(index: Path) -> None:
    shutil.rmtree(index)
    index.write_bytes(b"x")


def _become_directory(index: Path) -> None:
    (index / "header.bin").unlink()
    (index / "header.bin").mkdir()


def _files(folder: Path, name: str) -> Iterator[Path]:
    found = sorted(folder.glob(name if name.startswith("chroma") else f"*/{name}"))
    assert found, name
    yield from (path for path in found if "tribal-mcp" not in path.parts)


NOISE = random.Random(7).randbytes(8192)  # noqa: S311 - test data
DEEP = "[" * 20_000
ONE = "WHERE id = (SELECT min(id) FROM embeddings)"
LIMIT = "WHERE seq_id = (SELECT max(seq_id) FROM embeddings_queue)"

_SEQ = "UPDATE max_seq_id SET seq_id = {}"
_SCOPE = "UPDATE max_seq_id SET seq_id = {} WHERE segment_id IN (SELECT id FROM segments WHERE scope = '{}')"
_DOC = "UPDATE embedding_metadata SET string_value = {} WHERE key = 'chroma:document'"
_VALUE = "UPDATE embedding_metadata SET {}"

TABLES = [
    Recipe("max_seq_id: big-endian bytes", sql(_SEQ.format("unhex(printf('%016x', CASE WHEN typeof(seq_id) = 'integer' THEN seq_id ELSE 1 END))"))),
    Recipe("max_seq_id: digits as text", sql("UPDATE max_seq_id SET seq_id = 'a' || seq_id", "UPDATE max_seq_id SET seq_id = CAST(substr(seq_id, 2) AS BLOB) WHERE typeof(seq_id) = 'text'")),
    Recipe("max_seq_id: a word", sql(_SEQ.format("'abc'"))),
    Recipe("max_seq_id: 3 bytes", sql(_SEQ.format("x'ff00ff'"))),
    Recipe("max_seq_id: empty text", sql(_SEQ.format("''"))),
    Recipe("max_seq_id: null", sql(_SEQ.format("NULL"))),
    Recipe("max_seq_id: a fraction", sql(_SEQ.format("12.5"))),
    Recipe("max_seq_id: negative", sql(_SEQ.format("-5"))),
    Recipe("max_seq_id: rows beyond the log", sql(_SCOPE.format(5000, "METADATA"))),
    Recipe("max_seq_id: index beyond the log", sql(_SCOPE.format(5000, "VECTOR"))),
    Recipe("max_seq_id: all near the largest number", sql(_SEQ.format((1 << 63) - 1))),
    Recipe("max_seq_id: no rows", sql("DELETE FROM max_seq_id")),
    Recipe("max_seq_id: missing", sql("DROP TABLE max_seq_id")),
    Recipe("document: bytes of UTF-8", sql(_DOC.format("CAST(string_value AS BLOB)"))),
    Recipe("document: other bytes", sql(_DOC.format("x'fffe00'") + " AND id % 4 = 0"), lost_rows=0),
    Recipe("document: text that is not UTF-8", sql(_DOC.format("CAST(x'66fffe' AS TEXT)") + " AND id % 4 = 0")),
    Recipe("document: missing", sql("DELETE FROM embedding_metadata WHERE key = 'chroma:document' AND id % 4 = 0")),
    Recipe("id: bytes of UTF-8", sql("UPDATE embeddings SET embedding_id = CAST(embedding_id AS BLOB)")),
    Recipe("id: text that is not UTF-8", sql(f"UPDATE embeddings SET embedding_id = CAST(x'66fffe' AS TEXT) {ONE}"), lost_rows=1, lost_vectors=1),
    Recipe("id: other bytes", sql(f"UPDATE embeddings SET embedding_id = x'66fffe' {ONE}"), lost_rows=1, lost_vectors=1),
    Recipe("seq_id of rows: words", sql("UPDATE embeddings SET seq_id = 'abc'"), lost_vectors=9),
    Recipe("segment of rows: unknown", sql(f"UPDATE embeddings SET segment_id = 'x' {ONE}"), lost_rows=1, lost_vectors=1),
    Recipe("int_value: a word", sql(_VALUE.format("int_value = 'abc' WHERE int_value IS NOT NULL"))),
    Recipe("int_value: bytes", sql(_VALUE.format("int_value = x'ff' WHERE int_value IS NOT NULL"))),
    Recipe("float_value: a word", sql(_VALUE.format("float_value = 'abc' WHERE float_value IS NOT NULL"))),
    Recipe("bool_value: a word", sql(_VALUE.format("bool_value = 'abc' WHERE bool_value IS NOT NULL"))),
    Recipe("string_value: bytes", sql(_VALUE.format("string_value = x'ff' WHERE string_value IS NOT NULL AND key <> 'chroma:document'"))),
    Recipe("key: bytes", sql(_VALUE.format("key = CAST(key AS BLOB) WHERE key <> 'chroma:document'"))),
    Recipe("key: text that is not UTF-8", sql(_VALUE.format("key = CAST(x'66ff' AS TEXT) WHERE key = 'topic'"))),
    Recipe("key: null", sql("CREATE TABLE m2 (id INTEGER, key TEXT, string_value TEXT, int_value INTEGER, float_value REAL, bool_value INTEGER)", "INSERT INTO m2 SELECT id, CASE WHEN key = 'topic' THEN NULL ELSE key END, string_value, int_value, float_value, bool_value FROM embedding_metadata", "DROP TABLE embedding_metadata", "ALTER TABLE m2 RENAME TO embedding_metadata")),
    Recipe("schema: cut off", sql("UPDATE collections SET schema_str = '{'", "UPDATE collections SET config_json_str = '{'")),
    Recipe("schema: very deep", sql(f"UPDATE collections SET schema_str = '{DEEP}'", f"UPDATE collections SET config_json_str = '{DEEP}'")),
    Recipe("schema: a list", sql("UPDATE collections SET schema_str = '[1]'", "UPDATE collections SET config_json_str = '[1]'")),
    Recipe("schema: bytes", sql("UPDATE collections SET schema_str = x'ff00'", "UPDATE collections SET config_json_str = x'ff00'")),
    Recipe("schema: an unknown metric", sql("UPDATE collections SET schema_str = replace(schema_str, '\"space\":\"l2\"', '\"space\":\"hamming\"')")),
    Recipe("dimension: null", sql("UPDATE collections SET dimension = NULL")),
    Recipe("dimension: a word", sql("UPDATE collections SET dimension = 'abc'")),
    Recipe("dimension: too large", sql("UPDATE collections SET dimension = 9")),
    Recipe("dimension: negative", sql("UPDATE collections SET dimension = -8")),
    Recipe("collection name: bytes", sql("UPDATE collections SET name = CAST(name AS BLOB)")),
    Recipe("collection metadata: bytes and words", sql("INSERT INTO collection_metadata (collection_id, key, int_value) SELECT id, 'tribal_dimensions', 'abc' FROM collections WHERE true ON CONFLICT DO UPDATE SET int_value = 'abc'", "INSERT INTO collection_metadata (collection_id, key, str_value) SELECT id, 'tribal_model', x'ff' FROM collections WHERE true ON CONFLICT DO UPDATE SET str_value = x'ff'")),
    Recipe("database name: changed", sql("UPDATE databases SET name = 'other'"), EVERY, EVERY),
    Recipe("full-text table: missing", sql("DROP TABLE embedding_fulltext_search")),
    Recipe("full-text table: content missing", sql("PRAGMA writable_schema = ON", "DELETE FROM sqlite_master WHERE name = 'embedding_fulltext_search_content'")),
    Recipe("full-text table: emptied data", sql("DELETE FROM embedding_fulltext_search_data")),
    Recipe("index of rows: missing", sql("DROP INDEX embedding_metadata_int_value")),
    Recipe("embedding_metadata: missing", sql("DROP TABLE embedding_metadata")),
    Recipe("embeddings: missing", sql("DROP TABLE embeddings"), EVERY, EVERY),
    Recipe("segments: missing", sql("DROP TABLE segments"), EVERY, EVERY),
    Recipe("collections: missing", sql("DROP TABLE collections"), EVERY, EVERY),
    Recipe("embeddings_queue: missing", sql("DROP TABLE embeddings_queue"), lost_vectors=9),
    Recipe("databases: missing", sql("DROP TABLE databases")),
    Recipe("tenants: missing", sql("DROP TABLE tenants")),
    Recipe("migrations: missing", sql("DROP TABLE migrations")),
    Recipe("migrations: one too new", sql("INSERT INTO migrations VALUES ('sysdb', 99, 'x', 'x', 'x')")),
    Recipe("collection_metadata: missing", sql("DROP TABLE collection_metadata")),
    Recipe("segment_metadata: missing", sql("DROP TABLE segment_metadata")),
    Recipe("segments: no index", sql("DELETE FROM segments WHERE scope = 'VECTOR'"), lost_vectors=20),
    Recipe("segments: no rows", sql("DELETE FROM segments WHERE scope = 'METADATA'")),
    Recipe("segments: two indexes", sql("CREATE TABLE s2 AS SELECT * FROM segments", "UPDATE s2 SET id = 'second-' || id", "INSERT INTO segments SELECT * FROM s2 WHERE scope = 'VECTOR'", "DROP TABLE s2")),
    Recipe("log: emptied", sql("DELETE FROM embeddings_queue"), lost_vectors=9),
    Recipe("log: short vectors", sql(f"UPDATE embeddings_queue SET vector = x'0011223344' {LIMIT}"), lost_vectors=1),
    Recipe("log: vectors as words", sql(f"UPDATE embeddings_queue SET vector = 'abc' {LIMIT}"), lost_vectors=1),
    Recipe("log: metadata cut off", sql("UPDATE embeddings_queue SET metadata = '{'")),
    Recipe("log: metadata very deep", sql(f"UPDATE embeddings_queue SET metadata = '{DEEP}'")),
    Recipe("log: metadata cut off and not applied", sql(f"UPDATE embeddings_queue SET metadata = '{{' {LIMIT}", "UPDATE max_seq_id SET seq_id = 0"), lost_rows=1),
    Recipe("log: unknown operations", sql(f"UPDATE embeddings_queue SET operation = 99 {LIMIT}"), lost_vectors=1),
    Recipe("log: operations as words", sql(f"UPDATE embeddings_queue SET operation = 'abc' {LIMIT}"), lost_vectors=1),
    Recipe("log: ids as bytes", sql(f"UPDATE embeddings_queue SET id = x'ff' {LIMIT}"), lost_vectors=1),
    Recipe("log: last entry missing", sql(f"DELETE FROM embeddings_queue {LIMIT}"), lost_vectors=1),
    Recipe("log: topics unknown", sql("UPDATE embeddings_queue SET topic = 'x'"), lost_vectors=9),
    Recipe("log: topics as bytes", sql("UPDATE embeddings_queue SET topic = x'ff'"), lost_vectors=9),
]  # fmt: skip

FILES = [
    Recipe("database: first 16 bytes", overwrite("chroma.sqlite3", 0, NOISE[:16])),
    Recipe("database: first 100 bytes", overwrite("chroma.sqlite3", 0, NOISE[:100])),
    Recipe("database: first 100 bytes zero", overwrite("chroma.sqlite3", 0, bytes(100))),
    Recipe("database: first page", overwrite("chroma.sqlite3", 0, NOISE[:4096])),
    Recipe("database: cut in half", cut("chroma.sqlite3", 0.5), EVERY, EVERY),
    Recipe("database: cut to 90 %", cut("chroma.sqlite3", 0.9), EVERY, EVERY),
    Recipe("database: cut to one page", replace("chroma.sqlite3", b"SQLite format 3\0" + NOISE[:4080]), EVERY, EVERY),
    Recipe("database: empty", cut("chroma.sqlite3", 0), EVERY, EVERY),
    Recipe("database: noise", replace("chroma.sqlite3", NOISE), EVERY, EVERY),
    Recipe("database: zeros", replace("chroma.sqlite3", bytes(8192)), EVERY, EVERY),
    *(
        Recipe(f"database: noise at {part:.0%}", overwrite("chroma.sqlite3", part, NOISE[:4096]), EVERY, EVERY)
        for part in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    ),
    Recipe("database: zeros in the middle", overwrite("chroma.sqlite3", 0.3, bytes(20480)), EVERY, EVERY),
    Recipe("database: another SQLite database", another_database, EVERY, EVERY),
    Recipe("database: a directory", database_is_a_directory, EVERY, EVERY),
    Recipe("database: missing", remove("chroma.sqlite3"), EVERY, EVERY),
    Recipe("database: a journal of noise", beside("-journal")),
    Recipe("database: a write-ahead log of noise", beside("-wal")),
    *(Recipe(f"{name}: missing", remove(name), lost_vectors=20) for name in ("header.bin", "data_level0.bin", "index_metadata.pickle")),
    *(Recipe(f"{name}: missing", remove(name), lost_vectors=20) for name in ("length.bin", "link_lists.bin")),
    *(Recipe(f"{name}: empty", cut(name, 0), lost_vectors=20) for name in ("header.bin", "data_level0.bin", "index_metadata.pickle", "length.bin")),
    *(Recipe(f"{name}: cut in half", cut(name, 0.5), lost_vectors=20) for name in ("header.bin", "data_level0.bin", "index_metadata.pickle", "length.bin")),
    *(Recipe(f"{name}: noise", replace(name, NOISE), lost_vectors=20) for name in ("header.bin", "data_level0.bin", "index_metadata.pickle", "length.bin", "link_lists.bin")),
    *(Recipe(f"{name}: zeros", replace(name, bytes(100)), lost_vectors=20) for name in ("header.bin", "data_level0.bin", "index_metadata.pickle", "length.bin")),
    Recipe("header.bin: sizes of all ones", overwrite("header.bin", 0.04, b"\xff" * 60), lost_vectors=20),
    Recipe("index_metadata.pickle: labels as words", replace("index_metadata.pickle", pickle.dumps({"id_to_label": {"n00": "one"}})), lost_vectors=20),
    Recipe("index_metadata.pickle: a list", replace("index_metadata.pickle", pickle.dumps([1, 2])), lost_vectors=20),
    Recipe("index_metadata.pickle: huge labels", replace("index_metadata.pickle", pickle.dumps({"id_to_label": {"n00": 1 << 70, "n01": -1}})), lost_vectors=20),
    Recipe("index_metadata.pickle: calls code", replace("index_metadata.pickle", b"cos\nsystem\n(S'true'\ntR."), lost_vectors=20),
    Recipe("index directory: missing", each_index(shutil.rmtree), lost_vectors=20),
    Recipe("index directory: a file", each_index(_become_file), lost_vectors=20),
    Recipe("index directory: header is a directory", each_index(_become_directory), lost_vectors=20),
    Recipe("own files: journal of noise", own("journal.jsonl", NOISE)),
    Recipe("own files: journal cut off", own("journal.jsonl", b'{"collection": "mem')),
    Recipe("own files: writer marker of noise", own("writing.json", NOISE)),
    Recipe("own files: swap of noise", own("switch.json", NOISE)),
    Recipe("own files: rebuild of noise", own("rebuild", b"x")),
    Recipe("own files: backup of noise", each_index(_damage_backup)),
]  # fmt: skip

RECIPES = [*TABLES, *FILES]
