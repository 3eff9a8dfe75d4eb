"""Finds texts by words, without an index: reads them once and ranks those that fit (BM25).

Words are compared without case, accents and width. A word that only begins with the word looked
for counts half, which finds plurals and endings. Scripts that write no spaces are looked through
in pairs of characters. A few numbers are kept of each text that fits, and nothing of the others.
"""

import math
import re
from dataclasses import dataclass
from unicodedata import normalize

_MARKS = re.compile("[\u0300-\u036f]+")
_WITHOUT_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)  # Thai, Lao, Burmese, Khmer, Japanese and Chinese
_RUNS = re.compile(rf"[{_WITHOUT_SPACES}]+|[^\W{_WITHOUT_SPACES}]+")
_SPACELESS = re.compile(rf"[{_WITHOUT_SPACES}]")

_BEGUN = 0.5
_BEGUN_LENGTH = 3
"""A shorter word is the beginning of too many; and 100 is no beginning of 1000."""
_SATURATION, _LENGTH = 1.2, 0.75  # the usual k1 and b


def fold(text: str) -> str:
    """The text without case, accents and forms of width."""
    if text.isascii():
        return text.lower()
    return normalize("NFC", _MARKS.sub("", normalize("NFKD", text).casefold()))


def terms_of(query: str) -> list[str]:
    """What to look for: each word once, and pairs of characters where words are not told apart."""
    terms: list[str] = []
    for run in _RUNS.findall(fold(query)):
        if _SPACELESS.match(run) and len(run) > 1:
            terms += [run[at : at + 2] for at in range(len(run) - 1)]
        else:
            terms.append(run)
    return list(dict.fromkeys(terms))


@dataclass(frozen=True, slots=True)
class _Fit:
    """A text that has some of the terms: how often each stands in it."""

    id: str
    length: int
    counts: tuple[float, ...]


class WordSearch:
    """Ranks texts by how well they fit a query; all of them have to be shown to it.

    Args:
        query: words, in any order.
    """

    def __init__(self, query: str) -> None:
        self.terms = terms_of(query)
        self._fits: list[_Fit] = []
        self._texts = 0
        self._length = 0

    def look(self, texts: dict[str, str]) -> None:
        """Take a batch of texts in, by their ids."""
        for memory_id, text in texts.items():
            folded = fold(text)
            self._texts += 1
            self._length += len(folded)
            counts = tuple(_count(folded, term) if term in folded else 0.0 for term in self.terms)
            if any(counts):
                self._fits.append(_Fit(memory_id, len(folded), counts))

    def best(self, count: int) -> list[tuple[str, float]]:
        """The ids of the best, with scores above 0; equal ones in the order they came in."""
        columns = zip(*(fit.counts for fit in self._fits), strict=True)
        having = [sum(count > 0 for count in column) for column in columns]
        rarity = [math.log(1 + (self._texts - n + 0.5) / (n + 0.5)) for n in having]
        average = max(1.0, self._length / max(1, self._texts))

        def score(fit: _Fit) -> float:
            damping = _SATURATION * (1 - _LENGTH + _LENGTH * fit.length / average)
            return sum(
                weight * count * (_SATURATION + 1) / (count + damping)
                for weight, count in zip(rarity, fit.counts, strict=True)
            )

        scored = sorted(((fit.id, score(fit)) for fit in self._fits), key=lambda hit: -hit[1])
        return scored[:count]


def _count(text: str, term: str) -> float:
    """How often the term stands in the text as a word; as the beginning of one it counts half."""
    if _SPACELESS.match(term):
        return float(text.count(term))
    found = 0.0
    at = text.find(term)
    while at >= 0:
        end = at + len(term)
        if at == 0 or not _in_word(text[at - 1]):
            if end == len(text) or not _in_word(text[end]):
                found += 1
            elif len(term) >= _BEGUN_LENGTH and not term[-1].isdigit():
                found += _BEGUN
        at = text.find(term, end)
    return found


def _in_word(character: str) -> bool:
    return (character.isalnum() or character == "_") and not _SPACELESS.match(character)
