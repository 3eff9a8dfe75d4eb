"""Which label of a vector index an id has: Chroma's `index_metadata.pickle`.

As a dict, the labels of 200,000 ids take 30 MiB, and 70 while they are read, for the file has them
both ways round. Chroma 1.x writes the pairs one behind the other: so they are read a few thousand
at a time, each of them, and kept as numbers.
"""

import pickle
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from io import BytesIO
from itertools import islice
from typing import Any, BinaryIO, Self

import numpy as np

from tribal_mcp.errors import StoreDamaged

LABELS = "index_metadata.pickle"

_LEGACY = "chromadb.segment.impl.vector.local_persistent_hnsw", "PersistentData"
"""The class as which Chroma 0.x pickled the labels."""

# The pickle of Chroma 1.x, protocol 3: a dict of dicts, whose pairs come a thousand at a time.
_DICT = b"\x80\x03}("
_MORE = b"u("
_END = b"u."
_LABEL_OF_ID = b"X\x0b\x00\x00\x00id_to_label}("
_ID_OF_LABEL = b"uX\x0b\x00\x00\x00label_to_id}("
_AFTER_BOTH = b"uX\x0c\x00\x00\x00id_to_seq_id}"
_PART_BYTES = 1 << 18
_MOST_BYTES = 1 << 24
_TRIES = 100

Pairs = Mapping[str, int]


class Labels:
    """The labels of an index, in 24 bytes for each id, however long that is.

    Args:
        parts: gives the pairs, whenever it is called.

    Raises:
        TypeError: they do not map texts to numbers.
        ValueError: a number is negative, or an id stands twice.
    """

    def __init__(self, parts: Callable[[], Iterable[Pairs]]) -> None:
        self._parts = parts
        keys, labels = [_keys(())], [np.empty(0, np.int64)]
        for part in parts():
            if {*map(type, part)} - {str} or {*map(type, part.values())} - {int}:
                raise TypeError("id_to_label does not map ids to numbers")
            keys.append(_keys(part))
            labels.append(np.fromiter(part.values(), np.int64, len(part)))
        unsorted = np.concatenate(keys)
        keys.clear()
        order = np.argsort(unsorted)
        self._keys = unsorted[order]
        del unsorted
        self._labels = np.concatenate(labels)[order]
        if (self._labels < 0).any() or (self._keys[1:] == self._keys[:-1]).any():
            raise ValueError("id_to_label has a number below 0, or an id twice")

    @classmethod
    def read(cls, opened: Callable[[], BinaryIO]) -> Self:
        """The labels in a file of Chroma's, which `opened` opens whenever it is called.

        Raises:
            StoreDamaged: it is cut off, or is not what Chroma writes.
            OSError: it can't be opened or read.
        """

        def parts(read: Callable[[BinaryIO], Iterator[Pairs]]) -> Iterator[Pairs]:
            with opened() as file:
                yield from read(file)

        try:
            return cls(partial(parts, _in_parts))
        except OSError:
            raise
        except Exception:  # noqa: BLE001, S110 - of another layout, or damaged: read whole, it tells
            pass
        try:
            return cls(partial(parts, _whole))
        except (StoreDamaged, OSError):
            raise
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise StoreDamaged(f"{LABELS} can't be read: {error}.") from error

    def __contains__(self, record_id: str) -> bool:
        return bool(self.of([record_id])[0] >= 0)

    def __iter__(self) -> Iterator[str]:
        """All ids, from the file."""
        for part in self._parts():
            yield from part

    def of(self, ids: Collection[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The labels of those ids, -1 for one that is not known."""
        if not self._keys.size:
            return np.full(len(ids), -1)
        keys = _keys(ids)
        at = np.minimum(np.searchsorted(self._keys, keys), self._keys.size - 1)
        return np.where(self._keys[at] == keys, self._labels[at], -1)


def _keys(ids: Collection[str]) -> Any:  # noqa: ANN401 - an array of 16 bytes each
    """128 bits of each id, from hashes that nobody can foresee."""
    first = np.fromiter(map(hash, ids), np.int64, len(ids))
    second = np.fromiter((hash(i + "\0") for i in ids), np.int64, len(ids))
    return np.column_stack((first, second)).view("S16").ravel()


def _in_parts(file: BinaryIO) -> Iterator[Pairs]:
    """The pairs of `id_to_label` as Chroma 1.x writes them; the rest of the file is read as well.

    Raises:
        ValueError: it is laid out in another way.
    """
    head, begin, text = file.read(_PART_BYTES).partition(_LABEL_OF_ID)
    if not begin:
        raise ValueError("another layout")
    _unpickled(head + _END)
    for end in (_ID_OF_LABEL, _AFTER_BOTH):
        ended = False
        while not ended:
            more = file.read(_PART_BYTES)
            text += more
            if found := _first_pairs(text, end):
                pairs, text, ended = found
                if end is _ID_OF_LABEL:
                    yield pairs
            elif not more or len(text) > _MOST_BYTES:
                raise ValueError("another layout")
    _unpickled(_DICT + _AFTER_BOTH[1:] + text + file.read())


def _first_pairs(text: bytes, end: bytes) -> tuple[Any, bytes, bool] | None:
    """The pairs that the text begins with, what comes then, and whether these were the last.

    What looks like an end may stand within an id: then what comes before it can't be read. None
    if there is no end in it.
    """
    ends = (found.start() for found in re.finditer(re.escape(end), text))
    for at in islice(ends, _TRIES):
        with suppress(Exception):
            return _unpickled(_DICT + text[:at] + _END), text[at + len(end) :], True
    at = len(text)
    for _ in range(_TRIES):
        at = text.rfind(_MORE, 0, at)
        if at < 0:
            break
        with suppress(Exception):
            return _unpickled(_DICT + text[:at] + _END), text[at + len(_MORE) :], False
    return None


def _whole(file: BinaryIO) -> Iterator[Pairs]:
    stored = _unpickled(file.read())
    if isinstance(stored, _Attributes):
        stored = vars(stored)
    yield stored["id_to_label"]


def _unpickled(data: bytes) -> Any:  # noqa: ANN401 - plain values
    return _PlainUnpickler(BytesIO(data)).load()


class _Attributes:
    """What stands in for the class of Chroma 0.x: attributes, and nothing that could run."""


class _PlainUnpickler(pickle.Unpickler):
    """Takes plain values only; a pickle that names anything to call is not Chroma's."""

    def find_class(self, module: str, name: str) -> type[_Attributes]:
        if (module, name) == _LEGACY:
            return _Attributes
        raise StoreDamaged(
            f"{LABELS} names {module}.{name}; Chroma writes plain values only, so this file is not "
            "to be trusted."
        )
