"""An inverted index of some texts: which of them has which word how often, as a file of arrays.

A segment is built once and never changed. It also has what else a search has to know of each text:
its date, tags, source and language. Counting in it gives the same as counting in the texts.
"""

import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tribal_mcp.search.folding import fold_with_parts
from tribal_mcp.search.keywords import Keyword, is_spaceless, words_of

UNDATED = -(1 << 63)
"""The date of a text that has none."""
_VERSION = 2
_ALIGNED = 8
_CRC = 8
"""Digits at the beginning of a file: the CRC-32 of all that follows."""
_MOST = 0xFFFF
_COLUMNS = {
    "rows": "<i8", "written": "<i8", "hashes": "<i8", "created": "<i8", "lengths": "<i8",
    "kinds": "<u1", "languages": "<u1",
}  # fmt: skip
_POSTINGS = {"text": "<u1", "ends": "<i8", "starts": "<i8", "texts": "<u4", "counts": "<u2"}

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class Text(NamedTuple):
    """A text with what a search has to know of it.

    Attributes:
        row: its number in the store; texts of a kind are ordered by it.
        kind: a number for the collection that it is in.
        written: the number of the write that wrote it last.
        hash: of its id.
        created: its date in microseconds UTC, or `UNDATED`.
        labels: its tags and its source, each with a letter before it.
        content: it.
    """

    row: int
    kind: int
    written: int
    hash: int
    created: int
    labels: Sequence[str]
    content: str


class _Postings:
    """For each word: in which texts it occurs, and how often."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        self._blob = arrays["text"].tobytes()
        self._ends, self._starts = arrays["ends"], arrays["starts"]
        self._texts, self._counts = arrays["texts"], arrays["counts"]

    @staticmethod
    def arrays(words: Iterable[dict[str, int]]) -> dict[str, Any]:
        """The arrays for the words of some texts."""
        numbers = defaultdict[str, int]()
        numbers.default_factory = numbers.__len__
        word_of, count_of, sizes = list[int](), list[int](), list[int]()
        for counts in words:
            word_of += map(numbers.__getitem__, counts)
            count_of += counts.values()
            sizes.append(len(counts))
        which = np.array(word_of, np.int64)
        order = np.argsort(which, kind="stable")
        encoded = [word.encode(errors="surrogatepass") for word in numbers]
        lengths = np.fromiter((len(word) + 1 for word in encoded), np.int64, len(encoded))
        return {
            "text": np.frombuffer(b"\n" + b"\n".join(encoded) + b"\n", np.uint8),
            "ends": np.cumsum(lengths),
            "starts": np.cumsum(np.append(0, np.bincount(which, minlength=len(numbers)))),
            "texts": np.repeat(np.arange(len(sizes)), sizes)[order],
            "counts": np.minimum(np.array(count_of, np.int64), _MOST)[order],
        }

    def find(self, part: str, fits: Callable[[int, int], bool]) -> Iterator[tuple[int, str]]:
        """The words that contain a part, each once, with their numbers.

        Args:
            part: at least one character.
            fits: tells of the bytes before and after the part whether the word is wanted.
        """
        wanted, blob = part.encode(errors="surrogatepass"), self._blob
        at = blob.find(wanted)
        while at >= 0:
            if not fits(blob[at - 1], blob[at + len(wanted)]):
                at = blob.find(wanted, at + 1)
                continue
            number = int(self._ends.searchsorted(at))
            end = int(self._ends[number])
            begin = int(self._ends[number - 1]) if number else 0
            yield number, blob[begin + 1 : end].decode(errors="surrogatepass")
            at = blob.find(wanted, end)

    def whole(self, word: str) -> Iterator[tuple[int, str]]:
        """The same for the word itself."""
        return self.find(word, lambda before, after: before == after == _END)

    def all(self) -> list[str]:
        """All words, by their numbers."""
        return (
            self._blob.decode(errors="surrogatepass")[1:-1].split("\n") if self._ends.size else []
        )

    def of(self, number: int) -> tuple[Ints, Ints]:
        """The texts with the word of that number, and how often each has it."""
        part = slice(int(self._starts[number]), int(self._starts[number + 1]))
        return self._texts[part].astype(np.int64), self._counts[part]


_END = ord("\n")
_HIGH = 0x80


@dataclass(slots=True)
class Segment:
    """Some texts and their words. The arrays have one value for each text."""

    rows: Ints
    written: Ints
    hashes: Ints
    created: Ints
    lengths: Ints
    kinds: Ints
    languages: Ints
    names: list[str]
    """Of the languages."""
    words: _Postings
    labels: _Postings

    @classmethod
    def build(cls, texts: Sequence[Text]) -> tuple[Self, list[bytes]]:
        """A segment of those texts, and the parts of its file."""
        words, languages, lengths = list[dict[str, int]](), list[str](), list[int]()
        for text in texts:
            folded = fold_with_parts(text.content)
            counts, language = words_of(folded)
            words.append(counts)
            languages.append(language)
            lengths.append(len(folded))
        names = sorted(set(languages))
        columns = {
            "rows": [t.row for t in texts],
            "written": [t.written for t in texts],
            "hashes": [t.hash for t in texts],
            "created": [t.created for t in texts],
            "lengths": lengths,
            "kinds": [t.kind for t in texts],
            "languages": [names.index(language) for language in languages],
        }
        labels = ({json.dumps(label): 1 for label in t.labels} for t in texts)
        arrays = {
            name: np.asarray(array, dtype)
            for name, dtype, array in [
                *((name, dtype, columns[name]) for name, dtype in _COLUMNS.items()),
                *_named("words", _Postings.arrays(words)),
                *_named("labels", _Postings.arrays(labels)),
            ]
        }
        return cls._of(arrays, names), _as_file(arrays, names)

    @classmethod
    def read(cls, data: memoryview) -> Self:
        """The segment in the file of `build`.

        Raises:
            ValueError: it is damaged, or of another version.
        """
        if int(bytes(data[:_CRC]), 16) != zlib.crc32(data[_CRC:]):
            raise ValueError("damaged")
        head, _, _ = bytes(data[_CRC : 1 << 16]).partition(b"\n")
        found = json.loads(head)
        if found["version"] != _VERSION:
            raise ValueError("another version")
        arrays = {
            name: np.frombuffer(data, dtype, count, at)
            for name, (dtype, count, at) in found["arrays"].items()
        }
        return cls._of(arrays, found["languages"])

    @classmethod
    def _of(cls, arrays: dict[str, Any], names: list[str]) -> Self:
        postings = {
            kind: _Postings({name: arrays[f"{kind}.{name}"] for name in _POSTINGS})
            for kind in ("words", "labels")
        }
        columns = {name: arrays[name] for name in _COLUMNS}
        return cls(**columns, names=names, words=postings["words"], labels=postings["labels"])

    def count(self, keyword: Keyword) -> Floats:
        """How often each text has a keyword."""
        found = np.zeros(len(self.rows))
        words: dict[int, str] = {}
        for form in keyword.forms:
            if is_spaceless(form.word):
                words |= self.words.whole(form.word)
            else:
                inside = keyword.is_found_inside(form)
                words |= self.words.find(form.root, _always if inside else _begins(form.root))
        for number, word in words.items():
            value, by_language = _counted(keyword, word, "")
            if not value and not by_language:
                continue
            texts, counts = self.words.of(number)
            if by_language:
                found[texts] += self._values(keyword, word, self.languages[texts]) * counts
            else:
                found[texts] += value * counts
        return found

    def _values(self, keyword: Keyword, word: str, languages: Ints) -> Floats:
        """How often a word has a keyword, for texts in these languages."""
        values = np.zeros(len(self.names))
        for number in np.flatnonzero(np.bincount(languages)).tolist():
            values[number], _ = _counted(keyword, word, self.names[number])
        return values[languages]

    def count_misspelled(self, keyword: Keyword) -> Floats:
        """How often each text has a keyword with a typo."""
        found = np.zeros(len(self.rows))
        words: dict[int, str] = {}
        for half in keyword.halves():
            words |= self.words.find(half, _always)
        lengths = range(len(keyword.word) - 1, len(keyword.word) + 2)
        for number, word in words.items():
            if len(word) not in lengths and word.isalpha():
                continue
            if value := _misspelled(keyword, word):
                texts, counts = self.words.of(number)
                found[texts] += value * counts
        return found

    def having(self, labels: Iterable[str]) -> Bools:
        """Which texts have any of the labels."""
        found = np.zeros(len(self.rows), np.bool_)
        for label in labels:
            for number, _ in self.labels.whole(json.dumps(label)):
                found[self.labels.of(number)[0]] = True
        return found

    def count_labels(self, which: Bools) -> dict[str, int]:
        """How many of those texts have each label."""
        return {
            json.loads(label): int(which[self.labels.of(number)[0]].sum())
            for number, label in enumerate(self.labels.all())
        }


@lru_cache(maxsize=1 << 14)
def _counted(keyword: Keyword, word: str, language: str) -> tuple[float, bool]:
    """See `Keyword.count_in_word`; the same words are in most segments."""
    return keyword.count_in_word(word, language)


@lru_cache(maxsize=1 << 14)
def _misspelled(keyword: Keyword, word: str) -> float:
    """See `Keyword.misspelled`."""
    return keyword.misspelled(word)


def _always(_before: int, _after: int) -> bool:
    return True


def _begins(root: str) -> Callable[[int, int], bool]:
    """Whether a word or a part of an identifier may begin where the root does."""
    if root[0] == "_":
        return _always
    if root[0].isdigit():
        return lambda before, _: not 48 <= before <= 57  # noqa: PLR2004 - not after a digit
    starts = {*b"\n_0123456789", *range(_HIGH, 256)}
    return lambda before, _: before in starts


def _named(kind: str, arrays: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for name, dtype in _POSTINGS.items():
        yield f"{kind}.{name}", dtype, arrays[name]


def _as_file(arrays: dict[str, Any], names: list[str]) -> list[bytes]:
    parts, places, at = list[bytes](), dict[str, tuple[str, int, int]](), 0
    for name, array in arrays.items():
        places[name] = array.dtype.str, array.size, at
        data = array.tobytes()
        data += bytes(-len(data) % _ALIGNED)
        parts.append(data)
        at += len(data)

    def head(begin: int) -> bytes:
        found = {name: (dtype, count, begin + at) for name, (dtype, count, at) in places.items()}
        return json.dumps({"version": _VERSION, "languages": names, "arrays": found}).encode()

    begin = (_CRC + len(head(1 << 40))) // _ALIGNED * _ALIGNED + 2 * _ALIGNED
    parts.insert(0, head(begin).ljust(begin - _CRC - 1) + b"\n")
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return [b"%08x" % crc, *parts]
