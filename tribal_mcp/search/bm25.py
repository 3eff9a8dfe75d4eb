"""Keyword search without an index: sees all texts once and ranks the matches (BM25).

Only a few numbers are kept for each match, and nothing of other texts.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

from tribal_mcp.search.folding import fold_with_parts
from tribal_mcp.search.keywords import Keyword, keywords_of

_SATURATION, _LENGTH = 1.2, 0.75  # the usual k1 and b


@dataclass(frozen=True, slots=True)
class _Match:
    """A text with some of the keywords: how often it has each, and each with a typo."""

    id: str
    length: int
    counts: tuple[float, ...]
    typos: tuple[float, ...]

    def known(self, seen: list[bool]) -> list[float]:
        """The counts; a typo counts only for a keyword that no text has."""
        return [
            count if is_seen else typo
            for count, typo, is_seen in zip(self.counts, self.typos, seen, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A text that matches.

    Attributes:
        id: the memory.
        fit: from 0 to 1: the BM25 score relative to the best one, times the share of the question's
            keywords that the best match has. Rare keywords count more.
    """

    id: str
    fit: float


class KeywordSearch:
    """Ranks texts by how well they match a query; it has to see all of them.

    Args:
        query: a question, or keywords in any order.
        hints: words of it that say when, and need not be in a text.
    """

    def __init__(self, query: str, hints: str = "") -> None:
        self.keywords: list[Keyword] = keywords_of(query, hints)
        self._matches: list[_Match] = []
        self._seen = [False] * len(self.keywords)
        self._none = (0.0,) * len(self.keywords)
        self._texts = 0
        self._length = 0

    def add(self, texts: dict[str, str]) -> None:
        """Add a batch of texts, by id."""
        for memory_id, text in texts.items():
            folded = fold_with_parts(text)
            self._texts += 1
            self._length += len(folded)
            counts = [keyword.count(folded) for keyword in self.keywords]
            has = any(counts)
            if has and not all(self._seen):
                self._seen = [s or c > 0 for s, c in zip(self._seen, counts, strict=True)]
            typos = self._typos(folded)
            if has or any(typos):
                self._matches.append(_Match(memory_id, len(folded), tuple(counts), typos))

    def _typos(self, folded: str) -> tuple[float, ...]:
        """How often a text has each keyword that no text had so far, with a typo."""
        if all(self._seen):
            return self._none
        return tuple(
            0.0 if seen else keyword.misspelled(folded)
            for keyword, seen in zip(self.keywords, self._seen, strict=True)
        )

    def best(self, count: int, without: Collection[str] = ()) -> list[Ranked]:
        """The best matches, best first; ties keep the order of adding.

        Args:
            count: the most to return.
            without: ids to leave out.
        """
        seen, rarity = self._rarity()
        average = max(1.0, self._length / max(1, self._texts))
        scored: list[tuple[float, _Match]] = []
        for match in self._matches:
            damping = _SATURATION * (1 - _LENGTH + _LENGTH * match.length / average)
            score = sum(
                weight * count * (_SATURATION + 1) / (count + damping)
                for weight, count in zip(rarity, match.known(seen), strict=True)
            )
            if score > 0:
                scored.append((score, match))
        if not scored:
            return []
        scored.sort(key=lambda one: -one[0])
        highest, best = scored[0]
        shares = [k.weight * (1 + r) for k, r in zip(self.keywords, rarity, strict=True)]
        has = sum(s * min(1.0, c) for s, c in zip(shares, best.known(seen), strict=True))
        scale = has / sum(shares) / highest
        found = [
            Ranked(match.id, score * scale) for score, match in scored if match.id not in without
        ]
        return found[:count]

    def _rarity(self) -> tuple[list[bool], list[float]]:
        """For each keyword: whether a text has it without a typo, and how rare it is."""
        seen, rarity = [], []
        for place, keyword in enumerate(self.keywords):
            having = sum(match.counts[place] > 0 for match in self._matches)
            seen.append(having > 0)
            having = having or sum(match.typos[place] > 0 for match in self._matches)
            rare = math.log(1 + (self._texts - having + 0.5) / (having + 0.5))
            rarity.append(keyword.weight * rare)
        return seen, rarity
