"""Regular expressions with which a server finds the texts that may match a question best."""

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate, combinations, permutations
from math import log, prod

from tribal_mcp.search.folding import Accents, pattern_of
from tribal_mcp.search.keywords import Keyword

TEXTS = 2_000
"""The most texts that one of them should find."""
_KEYWORDS, _GROUPS, _TOGETHER = 8, 12, 3
"""The most keywords in one; the most groups of keywords, and the most keywords in a group."""
_BEGINNING = "(?:^|[^a-z])"
_LATIN_1 = 0xFF

Group = tuple[int, ...]


def matching(keyword: Keyword, folded: Iterable[str]) -> int:
    """In how many folded texts a regular expression finds a keyword."""
    roots = {form.root for form in keyword.forms}
    beginning = re.compile(f"{_BEGINNING}(?:{'|'.join(map(re.escape, roots))})")
    return sum(
        any(root in text for root in roots) and beginning.search(text) is not None
        for text in folded
    )


def find_all(keywords: Sequence[Keyword], expected: Sequence[int]) -> bool:
    """Whether the regular expressions find every text with a keyword; see `patterns`."""
    return len(keywords) <= _KEYWORDS and sum(expected) <= TEXTS


def patterns(
    keywords: Sequence[Keyword], expected: Sequence[int], total: int, query: str
) -> list[str]:
    """The regular expressions to try, in that order: the next one if one finds too few.

    If there are too many texts with any of the keywords, they find those with one of the rarest,
    and those with two or three of the others together.

    Args:
        keywords: those of the question.
        expected: about how many texts match each.
        total: how many texts there are.
        query: the question.
    """
    wide = any(ord(character) > _LATIN_1 for character in query)
    accents: list[Accents] = ["all"]
    if query.isascii():
        accents = ["none", "one"] if keywords[0].language in {"", "english"} else ["one"]

    def any_of(places: Iterable[int], accents: Accents) -> str:
        return "|".join(_pattern(keywords[n], accents, wide=wide) for n in places)

    gains = [k.weight * log((total + 1) / (n + 1)) for k, n in zip(keywords, expected, strict=True)]
    order = sorted(range(len(keywords)), key=lambda n: -gains[n])[:_KEYWORDS]
    if sum(expected[n] for n in order) <= TEXTS:
        return [any_of(order, each) for each in accents]
    alone, groups = _groups(order, expected, total)
    best = [
        *(any_of([n], accents[0]) for n in alone),
        *(
            ".*".join(f"(?:{any_of([n], accents[0])})" for n in places)
            for group in groups
            for places in permutations(group)
        ),
    ]
    alone = alone or order[:1]
    return [
        f"(?s:{'|'.join(best)})" if best else any_of(alone, accents[0]),
        any_of(alone, accents[-1]),
    ]


def _groups(
    order: Sequence[int], expected: Sequence[int], total: int
) -> tuple[list[int], list[Group]]:
    """The keywords to find alone, and the groups of others to find together."""

    def together(group: Group) -> float:
        return total * prod(expected[n] / total for n in group)

    def while_few(groups: Sequence[Group]) -> list[Group]:
        sums = accumulate(map(together, groups))
        return [group for group, n in zip(groups, sums, strict=True) if n <= TEXTS / 2][:_GROUPS]

    alone = [n for [n] in while_few([(n,) for n in order])]
    others = [n for n in order if n not in alone]
    groups: list[Group] = []
    for size in range(2, min(_TOGETHER, len(others)) + 1):
        groups = sorted(combinations(others, size), key=together)
        if together(groups[0]) <= TEXTS / 2:
            break
    return alone, while_few(groups) or groups[:1]


def _pattern(keyword: Keyword, accents: Accents, *, wide: bool) -> str:
    """A regular expression for the texts that may have a keyword."""
    roots = dict.fromkeys(form.root for form in keyword.forms)
    found = "|".join(pattern_of(root, wide=wide, accents=accents) for root in roots)
    return f"{_BEGINNING}(?:{found})" if accents == "none" else found
