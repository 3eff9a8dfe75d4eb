"""Ranks texts by keywords (BM25), from how often each text has each keyword.

`KeywordSearch` counts in the texts themselves, all of which it has to see. A store may count in an
index instead; both rank by `Bm25`, and so alike.
"""

import math
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from tribal_mcp.search.folding import fold_with_parts
from tribal_mcp.search.fusion import Ranked
from tribal_mcp.search.keywords import Keyword, keywords_of

_SATURATION, _LENGTH = 0.6, 0.5
"""k1 and b, lower than the usual 1.2 and 0.75: memories are short, and repeat a word by chance."""
DIGITS = 6
"""Of counts, so that they do not depend on the order of adding."""


class Bm25:
    """Scores texts. A count or a length may be a number, or an array of one for each text.

    Args:
        keywords: what to look for.
        having: how many texts have each of them.
        texts: how many texts there are.
        characters: how many characters all of them have.
    """

    def __init__(
        self, keywords: Sequence[Keyword], having: Sequence[int], texts: int, characters: int
    ) -> None:
        self._average = max(1.0, characters / max(1, texts))
        self._rarity = [
            keyword.weight * math.log(1 + (texts - n + 0.5) / (n + 0.5))
            for keyword, n in zip(keywords, having, strict=True)
        ]
        self._shares = [k.weight * (1 + r) for k, r in zip(keywords, self._rarity, strict=True)]

    def score(self, counts: Sequence[Any], length: Any) -> Any:  # noqa: ANN401 - see the class
        """How well a text matches."""
        damping = _SATURATION * (1 - _LENGTH + _LENGTH * length / self._average)
        parts = (
            rarity * count * (_SATURATION + 1) / (count + damping)
            for rarity, count in zip(self._rarity, counts, strict=True)
        )
        return reduce(add, parts, 0.0)  # since Python 3.12 `sum` rounds floats unlike arrays

    def scale(self, counts: Sequence[float], score: float) -> float:
        """What makes a `Ranked.fit` of a score, given the counts and the score of the best text.

        A text with few of the keywords, by weight, has them by chance: 20% of them make 0.1, 50%
        0.5, and 80% 0.9.
        """
        has = sum(share * min(1.0, n) for share, n in zip(self._shares, counts, strict=True))
        part: float = has / sum(self._shares)
        return part**2 * (3 - 2 * part) / score


class KeywordSearch:
    """Ranks texts by how well they match a query; it has to see all of them.

    Args:
        query: a question, or keywords in any order.
        hints: words of it that say when, and need not be in a text.
    """

    def __init__(self, query: str, hints: str = "") -> None:
        self.keywords: list[Keyword] = keywords_of(query, hints)
        self._ids: list[str] = []
        self._lengths: list[int] = []
        self._counts: list[list[float]] = []
        self._typos: list[list[float]] = []
        self._seen = [False] * len(self.keywords)
        self._none = [0.0] * len(self.keywords)
        self._texts = 0
        self._characters = 0

    def add(self, texts: dict[str, str]) -> None:
        """Add a batch of texts, by id."""
        for memory_id, text in texts.items():
            folded = fold_with_parts(text)
            self._texts += 1
            self._characters += len(folded)
            counts = [round(keyword.count(folded), DIGITS) for keyword in self.keywords]
            has = any(counts)
            if has and not all(self._seen):
                self._seen = [s or c > 0 for s, c in zip(self._seen, counts, strict=True)]
            typos = self._typos_in(folded)
            if has or any(typos):
                self._ids.append(memory_id)
                self._lengths.append(len(folded))
                self._counts.append(counts)
                self._typos.append(typos)

    def _typos_in(self, folded: str) -> list[float]:
        """How often a text has each keyword that no text had so far, with a typo."""
        if all(self._seen):
            return self._none
        return [
            0.0 if seen else round(keyword.misspelled(folded), DIGITS)
            for keyword, seen in zip(self.keywords, self._seen, strict=True)
        ]

    def best(self, count: int, among: tuple[Sequence[int], int] | None = None) -> list[Ranked]:
        """The best matches, best first; ties keep the order of adding.

        Args:
            count: the most to return.
            among: if only candidates were added: how many texts have each keyword, and how many
                there are.
        """
        seen = [sum(counts[k] > 0 for counts in self._counts) for k in range(len(self.keywords))]
        known = [
            [t if not n else c for n, c, t in zip(seen, counts, typos, strict=True)]
            for counts, typos in zip(self._counts, self._typos, strict=True)
        ]
        having = [sum(counts[k] > 0 for counts in known) for k in range(len(self.keywords))]
        texts, characters = self._texts, self._characters
        if among is not None:
            having = list(map(max, having, among[0]))
            characters = characters * among[1] // max(1, texts)
            texts = among[1]
        bm25 = Bm25(self.keywords, having, texts, characters)
        scores = [bm25.score(c, n) for c, n in zip(known, self._lengths, strict=True)]
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        if not scores or not scores[order[0]]:
            return []
        scale = bm25.scale(known[order[0]], scores[order[0]])
        return [
            Ranked(self._ids[place], scores[place] * scale)
            for place in order[:count]
            if scores[place] > 0
        ]
