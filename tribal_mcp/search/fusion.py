"""One ranking from a semantic and a keyword search.

Scores are between 0 and 1, whatever the model: a memory with all the keywords of the question and
its meaning has 1. `make recall` measures the weights; docs/performance.md has the results.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

_MEANING = 0.4
"""Of the score: the share of the cosine; the keywords have the rest."""
_IN_PERIOD = 0.2
"""Added to a memory from the period that the question mentions."""
_UNRELATED, _UNRELATED_FOR_WORDS = 0.07, 0.01
"""A memory with a lower score is not in the ranking; the second is for keyword search alone."""
_SURE, _SURE_FOR_WORDS = 0.3, 0.22
"""A lower score is weak: the memory is probably unrelated."""
_ENOUGH = 20
"""Cosines from which the usual one is computed; fewer say little."""
_HIGHEST_USUAL = 0.95


class Ranked(NamedTuple):
    """A memory that keyword search found.

    Attributes:
        id: it.
        fit: from 0 to 1: the BM25 score relative to the best one, times how many of the question's
            keywords the best match has. Rare keywords count more.
    """

    id: str
    fit: float


@dataclass(frozen=True, slots=True)
class Scored:
    """A memory in the ranking.

    Attributes:
        id: it.
        by: "meaning" if its vector was compared, "words" if only its words were.
        score: from 0 to 1.
        is_weak: it is probably unrelated.
    """

    id: str
    by: Literal["meaning", "words"]
    score: float
    is_weak: bool


def usual_cosine(cosines: Sequence[float]) -> float:
    """The cosine of a question with any memory: near 0 for some models, and 0.7 for others.

    Args:
        cosines: those of a sample of all memories.
    """
    if len(cosines) < _ENOUGH:
        return 0.0
    return min(_HIGHEST_USUAL, max(0.0, median(cosines)))


def fuse(
    cosines: Mapping[str, float],
    usual: float,
    words: Mapping[str, float],
    in_period: Collection[str] = (),
) -> list[Scored]:
    """The memories of both searches, best first; the clearly unrelated ones are left out.

    A memory without a vector is assumed to fit the meaning as well as it fits the words, compared
    with the best.

    Args:
        cosines: of the memories whose vectors were compared.
        usual: see `usual_cosine`.
        words: how well the matches of the keyword search fit.
        in_period: the memories from the period that the question mentions.
    """
    meanings = {i: max(0.0, (c - usual) / (1 - usual)) for i, c in cosines.items()}
    nearest = max(meanings.values(), default=1.0)
    unrelated, sure = (_UNRELATED, _SURE) if meanings else (_UNRELATED_FOR_WORDS, _SURE_FOR_WORDS)
    ranking: list[Scored] = []
    for memory_id in dict.fromkeys([*words, *meanings, *in_period]):
        of_words = words.get(memory_id, 0.0)
        meaning = meanings.get(memory_id, of_words * nearest)
        score = _MEANING * meaning + (1 - _MEANING) * of_words
        is_weak = score < sure
        bonus = _IN_PERIOD if memory_id in in_period else 0.0
        if score + bonus < unrelated:
            continue
        by: Literal["meaning", "words"] = "meaning" if memory_id in meanings else "words"
        ranking.append(Scored(memory_id, by, min(1.0, score + bonus), is_weak))
    ranking.sort(key=lambda one: -one.score)
    return ranking
