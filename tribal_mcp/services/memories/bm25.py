"""Keyword search without an index: reads all texts once and ranks the matches (BM25).

Words are compared without case, accents and width. A word that starts with the keyword counts half,
which finds plurals and other endings. Scripts without spaces are searched by pairs of characters.
Only a few numbers are kept for each match, and nothing of other texts.
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

_PREFIX_WEIGHT = 0.5
_PREFIX_LENGTH = 3
"""A shorter keyword would start too many words. A number is no prefix either: 100 of 1000."""
_SATURATION, _LENGTH = 1.2, 0.75  # the usual k1 and b


def fold(text: str) -> str:
    """The text without case, accents and width variants."""
    if text.isascii():
        return text.lower()
    return normalize("NFC", _MARKS.sub("", normalize("NFKD", text).casefold()))


def terms_of(query: str) -> list[str]:
    """The keywords: each word once, and pairs of characters in scripts without spaces."""
    terms: list[str] = []
    for run in _RUNS.findall(fold(query)):
        if _SPACELESS.match(run) and len(run) > 1:
            terms += [run[at : at + 2] for at in range(len(run) - 1)]
        else:
            terms.append(run)
    return list(dict.fromkeys(terms))


@dataclass(frozen=True, slots=True)
class _Match:
    """A text with some of the terms, and how often it has each."""

    id: str
    length: int
    counts: tuple[float, ...]


class KeywordSearch:
    """Ranks texts by how well they match a query; it has to see all of them.

    Args:
        query: keywords, in any order.
    """

    def __init__(self, query: str) -> None:
        self.terms = terms_of(query)
        self._matches: list[_Match] = []
        self._texts = 0
        self._length = 0

    def add(self, texts: dict[str, str]) -> None:
        """Add a batch of texts, by id."""
        for memory_id, text in texts.items():
            folded = fold(text)
            self._texts += 1
            self._length += len(folded)
            counts = tuple(_count(folded, term) if term in folded else 0.0 for term in self.terms)
            if any(counts):
                self._matches.append(_Match(memory_id, len(folded), counts))

    def best(self, count: int) -> list[tuple[str, float]]:
        """The ids of the best matches with their scores above 0; ties keep the order of adding."""
        columns = zip(*(match.counts for match in self._matches), strict=True)
        having = [sum(count > 0 for count in column) for column in columns]
        rarity = [math.log(1 + (self._texts - n + 0.5) / (n + 0.5)) for n in having]
        average = max(1.0, self._length / max(1, self._texts))

        def score(match: _Match) -> float:
            damping = _SATURATION * (1 - _LENGTH + _LENGTH * match.length / average)
            return sum(
                weight * count * (_SATURATION + 1) / (count + damping)
                for weight, count in zip(rarity, match.counts, strict=True)
            )

        scored = sorted(
            ((match.id, score(match)) for match in self._matches), key=lambda hit: -hit[1]
        )
        return scored[:count]


def _count(text: str, term: str) -> float:
    """How often the text has the term as a word; as the prefix of a word it counts half."""
    if _SPACELESS.match(term):
        return float(text.count(term))
    found = 0.0
    at = text.find(term)
    while at >= 0:
        end = at + len(term)
        if at == 0 or not _in_word(text[at - 1]):
            if end == len(text) or not _in_word(text[end]):
                found += 1
            elif len(term) >= _PREFIX_LENGTH and not term[-1].isdigit():
                found += _PREFIX_WEIGHT
        at = text.find(term, end)
    return found


def _in_word(character: str) -> bool:
    return (character.isalnum() or character == "_") and not _SPACELESS.match(character)
