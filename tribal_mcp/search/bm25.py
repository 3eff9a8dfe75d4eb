"""Ranks texts by keywords (BM25), from how often each text has each keyword.

`KeywordSearch` counts in the texts themselves, all of which it has to see. A store may count in an
index instead; both rank by `fits`, and so alike.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tribal_mcp.search.folding import fold_with_parts
from tribal_mcp.search.fusion import Ranked
from tribal_mcp.search.keywords import Keyword, keywords_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_SATURATION, _LENGTH = 1.2, 0.75  # the usual k1 and b
_DIGITS = 6
"""Of counts, so that they do not depend on the order of adding."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The texts that have some of the keywords.

    Attributes:
        counts: how often each text has each keyword, of shape (texts, keywords).
        typos: the same with a typo; it counts only for a keyword that no text has.
        lengths: the characters of each text.
        texts: how many texts were searched.
        characters: the characters of all of them.
    """

    counts: "Floats"
    typos: "Floats"
    lengths: "Floats"
    texts: int
    characters: int


def fits(keywords: Sequence[Keyword], found: Counts) -> "Floats":
    """The `fit` of each text; see `Ranked`. It is 0 for a text without a keyword."""
    import numpy as np

    scores = np.zeros(len(found.lengths))
    if not scores.size:
        return scores
    counts, typos = found.counts.round(_DIGITS), found.typos.round(_DIGITS)
    average = max(1.0, found.characters / max(1, found.texts))
    damping = _SATURATION * (1 - _LENGTH + _LENGTH * found.lengths / average)
    shares, known = [], []
    for place, keyword in enumerate(keywords):
        having = int((counts[:, place] > 0).sum())
        count = counts[:, place] if having else typos[:, place]
        having = having or int((count > 0).sum())
        rarity = keyword.weight * np.log(1 + (found.texts - having + 0.5) / (having + 0.5))
        scores += rarity * count * (_SATURATION + 1) / (count + damping)
        shares.append(keyword.weight * (1 + rarity))
        known.append(count)
    best = int(np.argmax(scores))
    if not scores[best] > 0:
        return np.zeros(scores.size)
    has = sum(s * min(1.0, float(c[best])) for s, c in zip(shares, known, strict=True))
    result: Floats = scores * (has / sum(shares) / scores[best])
    return result


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
            counts = [keyword.count(folded) for keyword in self.keywords]
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
            0.0 if seen else keyword.misspelled(folded)
            for keyword, seen in zip(self.keywords, self._seen, strict=True)
        ]

    def best(self, count: int, without: Collection[str] = ()) -> list[Ranked]:
        """The best matches, best first; ties keep the order of adding.

        Args:
            count: the most to return.
            without: ids to leave out.
        """
        import numpy as np

        shape = (len(self._ids), len(self.keywords))
        found = Counts(
            np.array(self._counts, np.float64).reshape(shape),
            np.array(self._typos, np.float64).reshape(shape),
            np.array(self._lengths, np.float64),
            self._texts,
            self._characters,
        )
        known = fits(self.keywords, found)
        order = np.argsort(-known, kind="stable")
        ranked = (
            Ranked(self._ids[place], float(known[place]))
            for place in order[: count + len(without)].tolist()
            if known[place] > 0
        )
        return [one for one in ranked if one.id not in without][:count]
