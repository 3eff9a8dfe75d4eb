"""Real Chroma folders, and what Chroma itself returns from them."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection

from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.salvage import SalvagedFiles
from tribal_mcp.stores.raw import RawCollection, RawRecord

Record = tuple[str, str | None, dict[str, Any], bytes | None]
"""Id, document, metadata and the float32 vector's bytes."""

SPACES = ("l2", "cosine", "ip")


@contextmanager
def chroma(folder: Path) -> Iterator[ClientAPI]:
    settings = chromadb.config.Settings(_env_file=None, anonymized_telemetry=False)
    client = chromadb.PersistentClient(folder, settings=settings)
    try:
        yield client
    finally:
        client.close()  # type: ignore[attr-defined]


def create(
    client: ClientAPI, name: str = "memories", *, space: str = "l2", sync_threshold: int = 1000
) -> Collection:
    settings: Any = {"hnsw": {"space": space, "sync_threshold": sync_threshold, "batch_size": 2}}
    return client.create_collection(name, embedding_function=None, configuration=settings)


def existing(client: ClientAPI, name: str = "memories") -> Collection:
    return client.get_collection(name, embedding_function=None)


def vectors(count: int, dimensions: int = 8, seed: int = 0) -> Vector:
    normal = np.random.default_rng(seed).standard_normal((count, dimensions))
    return (normal * 3).astype(np.float32)


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - test data


def change(folder: Path, *statements: str) -> None:
    sql = sqlite3.connect(folder / "chroma.sqlite3", isolation_level=None)
    for statement in statements:
        sql.execute(statement)
    sql.close()


def add(collection: Collection, ids: list[str], embeddings: Vector, **more: Any) -> None:  # noqa: ANN401
    collection.add(ids=ids, embeddings=embeddings, **more)


def records_from_chroma(collection: Collection) -> list[Record]:
    got: Any = collection.get(include=["documents", "metadatas", "embeddings"])
    return [
        (i, document, dict(metadata or {}), np.asarray(vector).astype(np.float32).tobytes())
        for i, document, metadata, vector in zip(
            got["ids"], got["documents"], got["metadatas"], got["embeddings"], strict=True
        )
    ]


def record(raw: RawRecord) -> Record:
    return raw.id, raw.document, raw.metadata, None if raw.vector is None else raw.vector.tobytes()


def read_all(folder: Path, name: str = "memories", batch_size: int = 7) -> list[Record]:
    with ChromaFiles(folder) as files:
        return [
            record(raw) for part in files.read(the(files, name), None, batch_size) for raw in part
        ]


def the(files: ChromaFiles | SalvagedFiles, name: str = "memories") -> RawCollection:
    found = files.collection(name)
    assert found is not None
    return found


def assert_same_as_chroma(folder: Path, *collections: Collection) -> None:
    """Assert that every record equals Chroma's, bit for bit and in type, without damage.

    Except for vectors of a cosine collection: Chroma divides and multiplies them by their norms,
    while vectors that are only in the log are read as they were written.
    """
    with ChromaFiles(folder) as files:
        for collection in collections:
            raw = the(files, collection.name)
            expected = records_from_chroma(collection)
            read = [record(r) for part in files.read(raw, batch_size=7) for r in part]
            if raw.space == "cosine":
                given, found = (numbers(records, raw) for records in (expected, read))
                np.testing.assert_allclose(found, given, rtol=1e-6)
                expected, read = ([r[:3] for r in records] for records in (expected, read))  # type: ignore[assignment]
            assert typed(expected) == typed(read)
            assert collection.count() == files.count(raw)
            assert [r[0] for r in expected] == files.ids(raw)
            assert files.without_vector(raw) == files.without_row(raw) == []


def numbers(records: list[Record], raw: RawCollection) -> Vector:
    joined = b"".join(vector or b"" for *_, vector in records)
    return np.frombuffer(joined, np.float32).reshape(len(records), raw.dimension or 0)


def typed(records: list[Record]) -> list[Any]:
    """Distinguish 1, 1.0 and True."""
    return [
        (i, document, {key: repr(value) for key, value in sorted(metadata.items())}, *vector)
        for i, document, metadata, *vector in records
    ]


def random_metadata(rng: random.Random) -> dict[str, Any] | None:
    """Values of every type that Chroma accepts; floats have up to 15 digits, as it keeps."""
    scalars: list[Any] = [
        "", "ünï😀", "nul\0inside", 0, -5, 2**63 - 1, -(2**63), 0.5, 1.0, -1e300, True, False,
        round(rng.random(), 12),
    ]  # fmt: skip
    lists: list[Any] = [["b", "a", "b", ""], [3, 1, 2**53 + 1], [0.5, 0.25], [True, False], ["ü"]]
    keys = rng.sample(["a", "b", "tags", "schlüssel", "with blank"], rng.randrange(5))
    return {key: rng.choice(scalars if rng.random() < 0.6 else lists) for key in keys} or None


def index_of(folder: Path) -> Path:
    [header] = folder.glob("*/header.bin")
    return header.parent
