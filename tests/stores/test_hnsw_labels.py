"""The labels of an index are read exactly as Chroma wrote them, or not at all."""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chroma_folders import add, chroma, create, index_of, seeded, vectors
from tribal_mcp.errors import StoreDamaged
from tribal_mcp.stores.chroma.files import hnsw_labels
from tribal_mcp.stores.chroma.files.hnsw_labels import Labels

LIKE_AN_END = [
    "u(",
    "u(u",
    "u." * 40,
    "uX\x0b\0\0\0label_to_id}(",
    "X\x0b\0\0\0id_to_label}(",
    "uX\x0c\0\0\0id_to_seq_id}",
    "(" * 300,
    "Zürich u( 東京 \U0001f980",
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file by Chroma with 2,508 ids, some of which look like the bytes between ids."""
    folder = tmp_path_factory.mktemp("labels")
    ids = [f"{LIKE_AN_END[n % 8]}{n}" if n % 40 < 8 else f"memory {n}" for n in range(2_500)]
    with chroma(folder) as client:
        add(create(client, sync_threshold=100), [*LIKE_AN_END, *ids], vectors(2_508, 2))
    return (index_of(folder) / "index_metadata.pickle").read_bytes()


@pytest.fixture(params=[20_000, 1 << 18], ids="parts of {}".format)
def _parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hnsw_labels, "_PART_BYTES", request.param)


def read(data: bytes) -> Labels:
    return Labels.read(lambda: io.BytesIO(data))


def by_pickle(data: bytes) -> dict[str, int]:
    return pickle.loads(data)["id_to_label"]  # type: ignore[no-any-return]  # noqa: S301 - Chroma's own


@pytest.mark.usefixtures("_parts")
def test_every_id_has_its_label_and_unknown_ids_have_none(written: bytes) -> None:
    expected = by_pickle(written)
    labels = read(written)
    assert len(expected) == 2_508
    assert sorted(labels) == sorted(expected)
    assert labels.of(list(expected)).tolist() == list(expected.values())
    assert labels.of(["", "memory", "u(\0", "memory 8\0"]).tolist() == [-1] * 4
    assert LIKE_AN_END[3] in labels
    assert "memory" not in labels


def test_a_large_file_is_read_in_parts(written: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hnsw_labels, "_PART_BYTES", 30_000)
    monkeypatch.setattr(hnsw_labels, "_whole", pytest.fail)
    assert len(list(read(written))) == 2_508


def test_a_truncated_file_is_damaged(written: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hnsw_labels, "_PART_BYTES", 30_000)
    size = len(written)
    for end in [*range(0, 150, 10), *range(150, size, size // 9), *range(size - 60, size, 4)]:
        with pytest.raises(StoreDamaged, match="pickle can't be read"):
            read(written[:end])


def changed(data: bytes) -> Iterator[bytes]:
    """Copies with one random byte changed."""
    random = seeded(4)
    for _ in range(20):
        at = random.randrange(len(data))
        yield data[:at] + bytes([data[at] ^ random.randrange(1, 256)]) + data[at + 1 :]


def test_a_changed_byte_has_the_same_effect_as_when_the_file_is_unpickled_at_once(
    written: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hnsw_labels, "_PART_BYTES", 30_000)
    refused = 0
    for data in changed(written):
        try:
            expected = by_pickle(data)
        except Exception:  # noqa: BLE001 - it can raise nearly anything
            refused += 1
            with pytest.raises(StoreDamaged):
                read(data)
        else:
            if min(expected.values()) >= 0:
                assert dict(zip(expected, read(data).of(list(expected)), strict=True)) == expected
    assert 2 < refused < 18


@pytest.mark.parametrize(
    "pairs", [{"a": "1"}, {"a": -1}, {"a": True}, {"a": 1 << 70}, {1: 1}, [1], "a", None]
)
def test_a_file_that_does_not_map_ids_to_numbers_is_damaged(pairs: object) -> None:
    with pytest.raises(StoreDamaged):
        read(pickle.dumps({"id_to_label": pairs}))


def test_a_file_without_ids_has_no_labels(tmp_path: Path) -> None:
    labels = read(pickle.dumps({"id_to_label": {}}))
    assert (list(labels), "a" in labels, labels.of(["a"]).tolist()) == ([], False, [-1])
    with pytest.raises(FileNotFoundError):
        Labels.read(lambda: (tmp_path / "missing").open("rb"))
