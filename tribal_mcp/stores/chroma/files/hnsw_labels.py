"""Reads the label of each id in a vector index from Chroma's `index_metadata.pickle`.

As a dict, the labels of 200,000 ids take 30 MiB, and 70 MiB while they are read, because the file
has each pair in both directions. So the file is read a few thousand pairs at a time, in the order
in which Chroma 1.x writes them, and the labels are kept as numbers.
"""

import pickle
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from tribal_mcp.errors import StoreDamaged

if TYPE_CHECKING:
    import numpy as np

LABELS = "index_metadata.pickle"

_LEGACY = "chromadb.segment.impl.vector.local_persistent_hnsw", "PersistentData"
"""The class that Chroma 0.x pickled the labels as."""

# The pickle of Chroma 1.x, protocol 3: a dict of dicts, whose pairs are in groups of a thousand.
_DICT = b"\x80\x03}("
_MORE = b"u("
_END = b"u."
_LABEL_OF_ID = b"X\x0b\x00\x00\x00id_to_label}("
_ID_OF_LABEL = b"uX\x0b\x00\x00\x00label_to_id}("
_AFTER_BOTH = b"uX\x0c\x00\x00\x00id_to_seq_id}"
_PART_BYTES = 1 << 18
_MOST_BYTES = 1 << 24
_TRIES = 100
_INTEGERS = {"BININT", "BININT1", "BININT2", "LONG1"}

Pairs = Mapping[str, int]


class Labels:
    """The labels of an index, in 24 bytes per id, whatever its length.

    Attributes:
        parts: returns the pairs, each time it is called.

    Raises:
        TypeError: they do not map strings to integers.
        ValueError: a label is negative or too large, or an id is a duplicate.
    """

    def __init__(self, parts: Callable[[], Iterable[Pairs]]) -> None:
        import numpy as np

        self.parts = parts
        keys, labels = [_keys(())], [np.empty(0, np.int64)]
        for part in parts():
            if {*map(type, part)} - {str} or {*map(type, part.values())} - {int}:
                raise TypeError("id_to_label does not map ids to numbers")
            keys.append(_keys(part))
            try:
                labels.append(np.fromiter(part.values(), np.int64, len(part)))
            except OverflowError as error:
                raise ValueError("id_to_label has a label that is too large") from error
        unsorted = np.concatenate(keys)
        keys.clear()
        order = np.argsort(unsorted)
        self._keys = unsorted[order]
        del unsorted
        self._labels = np.concatenate(labels)[order]
        if (self._labels < 0).any() or (self._keys[1:] == self._keys[:-1]).any():
            raise ValueError("id_to_label has a negative label or a duplicate id")

    @classmethod
    def read(cls, opened: Callable[[], BinaryIO]) -> Self:
        """The labels in one of Chroma's files.

        Args:
            opened: opens the file, each time it is called.

        Raises:
            StoreDamaged: the file is truncated, or not what Chroma writes.
            OSError: the file can't be opened or read.
        """

        def parts(read: Callable[[BinaryIO], Iterator[Pairs]]) -> Iterator[Pairs]:
            with opened() as file:
                yield from read(file)

        try:
            return cls(partial(parts, _in_parts))
        except OSError:
            raise
        except Exception:  # noqa: BLE001, S110 - damaged, or in another layout: reading it at once decides
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
        for part in self.pairs():
            yield from part

    def pairs(self) -> Iterator[Pairs]:
        """The pairs again; the rest of the file was checked when they were first read."""
        left = self._keys.size
        for part in self.parts():
            yield part
            left -= len(part)
            if not left:
                return

    def of(self, ids: Collection[str]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """The labels of those ids, -1 for an unknown id."""
        import numpy as np

        if not self._keys.size:
            return np.full(len(ids), -1)
        keys = _keys(ids)
        at = np.minimum(np.searchsorted(self._keys, keys), self._keys.size - 1)
        return np.where(self._keys[at] == keys, self._labels[at], -1)


def _keys(ids: Collection[str]) -> Any:  # noqa: ANN401 - an array of 16 bytes each
    """128 bits of each id, from hashes that nobody can predict."""
    import numpy as np

    first = np.fromiter(map(hash, ids), np.int64, len(ids))
    second = np.fromiter((hash(i + "\0") for i in ids), np.int64, len(ids))
    return np.column_stack((first, second)).view("S16").ravel()


def _in_parts(file: BinaryIO) -> Iterator[Pairs]:
    """The pairs of `id_to_label` as Chroma 1.x writes them; the rest of the file is checked, too.

    Raises:
        ValueError: the file has another layout.
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
    """The pairs at the beginning of the text, the text after them, and whether they are the last.

    Bytes that look like an end may be part of an id; then the text before them can't be unpickled.
    None if the text contains no end.
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
    """Replaces the class of Chroma 0.x: holds attributes and runs nothing."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain values only; Chroma never writes a pickle that names something to call."""

    def find_class(self, module: str, name: str) -> type[_Attributes]:
        if (module, name) == _LEGACY:
            return _Attributes
        raise StoreDamaged(
            f"{LABELS} refers to {module}.{name}. Chroma writes plain values only, so this file "
            "can't be trusted."
        )


def readable_pairs(data: bytes) -> dict[str, int]:
    """The pairs of `id_to_label` before the place where the file is truncated or damaged."""
    import pickletools  # noqa: PLC0415 - only for a damaged file

    labels: dict[str, int] = {}
    inside, last = False, ""
    with suppress(Exception):  # a damaged pickle can raise nearly anything
        for code, value, _ in pickletools.genops(data):
            if type(value) is str:
                if value == "label_to_id":
                    break
                inside, last = inside or value == "id_to_label", value
            elif inside and type(value) is int and code.name in _INTEGERS:
                labels[last] = value
    return labels
