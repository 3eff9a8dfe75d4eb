"""The keywords of a question, and how often a text has each.

A word is found in its other inflections, as a part of an identifier and, counting less, as the
beginning of a longer word. Texts are compared as `fold_with_parts` leaves them. Scripts without
spaces are searched by pairs of characters. (Over 300 lines: the rules for words of a question and
of a text have to match.)
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import takewhile

from tribal_mcp.search.folding import fold, fold_with_parts, snake_case
from tribal_mcp.search.languages import (
    COMPOUNDING,
    is_korean_ending,
    is_stop_word,
    korean_base,
    language_of,
    latin_languages,
    stemmer,
    without_asking,
)

_WITHOUT_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)  # Thai, Lao, Burmese, Khmer, Japanese and Chinese
_RUNS = re.compile(rf"[{_WITHOUT_SPACES}]+|[^\W{_WITHOUT_SPACES}]+")
_ASCII_RUNS = re.compile(r"\w+", re.ASCII)  # the same for ASCII, twice as fast
_SPACELESS = re.compile(rf"[{_WITHOUT_SPACES}]")
_HANGUL = re.compile("[가-힣]")
_SEGMENT = re.compile(rf"[^\W\d_{_WITHOUT_SPACES}]+|\d+")
_PARTS = re.compile(rf"[^\W\d_{_WITHOUT_SPACES}]+|\d+")

_INFLECTED = 0.9
_PREFIX = 0.5
_PART = 0.7
_INSIDE = 0.4
_TYPO = 0.5
"""What an occurrence counts that is not the word itself: another form of it, the beginning of a
longer word, a part of an identifier, a later part of a compound, a word with a typo."""
_PART_WEIGHT = 0.3
"""Of the parts of an identifier in the question, beside the whole."""
_HINT_WEIGHT = 0.3
_ROOT = 3
"""A shorter beginning would start too many words. A number is no beginning either: 100 of 1000."""
_BEGINNING = 4
"""A shorter word is searched whole: "use" is not meant to find "user"."""
_LONG = 6
"""Characters of a word in which a typo is looked for."""
_LONGEST = 60
"""A longer run of letters is no word with inflections."""
_COMPOUND = 5
_UMLAUTS = re.compile("(?<![aeioqu])([aou])e")
_WITH_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "ae", "Ö": "oe", "Ü": "ue"})


@dataclass(frozen=True, slots=True)
class Form:
    """One spelling of a keyword.

    Attributes:
        word: it, folded.
        root: the beginning that its inflections have in common with it.
    """

    word: str
    root: str


@dataclass(frozen=True, slots=True)
class Keyword:
    """A word of a question.

    Attributes:
        word: it, folded.
        forms: its spellings, itself first.
        language: of the question, by its name in Snowball; empty if it is not known.
        weight: how much it counts.
    """

    word: str
    forms: tuple[Form, ...]
    language: str = ""
    weight: float = 1.0

    def count(self, text: str) -> float:
        """How often a folded text has it."""
        found = 0.0
        for form in self.forms:  # a loop: this is called for every keyword and text
            if form.root in text:
                found += self._count(form, text, _comparer(form, self.language, text))
        return found

    def count_in_word(self, word: str, language: str) -> tuple[float, bool]:
        """How often a word of a text has it; and whether the language of the text matters.

        Args:
            word: the word.
            language: the language of the text, by its name in Snowball; empty if it is not known.
        """
        asked: list[str] = []
        found = 0.0
        for form in self.forms:
            if form.root in word:
                same = _comparer(form, self.language or language, "", asked)
                found += self._count(form, word, same)
        return found, bool(asked) and not self.language

    def halves(self) -> tuple[str, ...]:
        """Parts of which one is left whatever the typo; none if the word is too short for one."""
        word = self.word
        if len(word) < _LONG or not word.isalpha() or _HANGUL.match(word):
            return ()
        middle = len(word) // 2
        crossed = word[: middle - 1] + word[middle] + word[middle - 1] + word[middle + 1 :]
        return word[:middle], word[middle:], crossed

    def misspelled(self, text: str) -> float:
        """How often a folded text has a word that is one typo away from this one."""
        word = self.word
        found: set[tuple[int, int]] = set()
        for half in self.halves():
            at = text.find(half)
            while at >= 0:
                begin, end = _extent(text, at, len(word) + 1)
                if abs(end - begin - len(word)) <= 1 and is_one_edit(word, text[begin:end]):
                    found.add((begin, end))
                at = text.find(half, at + 1)
        return _TYPO * len(found)

    def _count(self, form: Form, text: str, same: Callable[[str], bool]) -> float:
        if _SPACELESS.match(form.word):
            return float(text.count(form.word))
        found, root = 0.0, form.root
        at = text.find(root)
        while at >= 0:
            end = at + len(root)
            left = _boundary(text, at)
            if left is not None:
                value, end = self._value(form, text, at, same)
                found += left * value
            elif self.is_found_inside(form):
                found += _INSIDE * text.startswith(form.word, at)
            at = text.find(root, max(end, at + 1))
        return found

    def _value(
        self, form: Form, text: str, at: int, same: Callable[[str], bool]
    ) -> tuple[float, int]:
        """What the word that begins there counts, and where it ends."""
        word = form.word
        segment = _SEGMENT.match(text, at)
        end = segment.end() if segment and _SEGMENT.fullmatch(word) else at + len(word)
        there = text[at:end]
        right = _boundary(text, end) or 0.0
        if there == word:
            return right, end
        if right and same(there):
            return _INFLECTED * right, end
        if there.startswith(word) and len(word) >= _BEGINNING and not word[-1].isdigit():
            return _PREFIX, end
        return 0.0, end

    def is_found_inside(self, form: Form) -> bool:
        """Whether it also counts inside a word: in languages that join words, and in Korean."""
        is_long = self.language in COMPOUNDING and len(form.word) >= _COMPOUND
        return is_long or bool(_HANGUL.match(form.root))


def keywords_of(question: str, hints: str = "") -> list[Keyword]:
    """The keywords of a question: each word once, and pairs of characters without spaces.

    Stop words are left out, unless there is nothing else.

    Args:
        question: the question.
        hints: words of it that count less.
    """
    spoken = _RUNS.findall(question)
    folded = without_asking(fold(question))
    words = [run for run in _RUNS.findall(folded) if not _SPACELESS.match(run)]
    language = language_of(question, words)
    names = {fold(word) for word in spoken[1:] if word[:1].isupper() and language == "english"}
    stop = {word for word in words if is_stop_word(word, language) and word not in names}
    if len(stop) == len(set(words)) and not _SPACELESS.search(folded):
        stop = set()
    found: dict[str, Keyword] = {}
    for run in _RUNS.findall(folded):
        if run in stop:
            continue
        if _SPACELESS.match(run):
            pairs = [run[at : at + 2] for at in range(len(run) - 1)] or [run]
            found |= {pair: Keyword(pair, (Form(pair, pair),)) for pair in pairs}
        else:
            found.setdefault(run, _keyword(run, language))
    for word in fold_with_parts(question).split():
        for part in _parts(word):
            found.setdefault(part, _keyword(part, language, _PART_WEIGHT))
    for word in spoken:
        for spelled in (fold(word.translate(_WITH_UMLAUTS)), fold(snake_case(word))):
            known = found.get(fold(word))
            if known and spelled != known.word:
                forms = (*known.forms, _form(spelled, language))
                found[known.word] = replace(known, forms=forms)
    hinted = set(_RUNS.findall(fold(hints)))
    return [replace(k, weight=_HINT_WEIGHT) if k.word in hinted else k for k in found.values()]


def is_spaceless(word: str) -> bool:
    """Whether it is of a script without spaces."""
    return bool(_SPACELESS.match(word))


def words_of(text: str) -> tuple[dict[str, int], str]:
    """How often each word of a folded text occurs, and the language of the text.

    Where words are not separated by spaces, each character and each pair of them is a word.
    """
    runs = (_ASCII_RUNS if text.isascii() else _RUNS).findall(text)
    language = language_of(text, runs)
    if text.isascii() or not _SPACELESS.search(text):
        return Counter(runs), language
    found = Counter(run for run in runs if not _SPACELESS.match(run))
    for run in runs:
        if _SPACELESS.match(run):
            found.update(run)
            pairs = {run[at : at + 2] for at in range(len(run) - 1)}
            for pair in pairs:
                found[pair] += run.count(pair)
    return found, language


def _parts(word: str) -> list[str]:
    """The parts of an identifier that are long enough to search for; none of a plain word."""
    parts = _PARTS.findall(word)
    return [p for p in parts if len(p) >= _ROOT] if len(parts) > 1 and "_" in word else []


def _keyword(word: str, language: str, weight: float = 1.0) -> Keyword:
    forms = [_form(word, language)]
    if len(word) >= _COMPOUND and word.isalpha():
        without = _UMLAUTS.sub(r"\1", word)
        if without != word:
            forms.append(_form(without, language))
    return Keyword(word, tuple(forms), language, weight)


def _form(word: str, language: str) -> Form:
    if not word.isalpha():
        return Form(word, word)
    if _HANGUL.match(word):
        return Form(word, korean_base(word))
    languages: Iterable[str] = [language] if language else latin_languages()
    if not language and not word.isascii():
        languages = [""]
    stems = [stemmer(one)(word) for one in languages]
    root = min((word[: _common(word, stem)] for stem in stems), key=len)
    if root.endswith("i") or len(root) > _BEGINNING:  # happiness, happy; cheval, chevaux
        root = root[:-1]
    return Form(word, root if len(root) >= _ROOT else word)


def _comparer(
    form: Form, language: str, text: str, asked: list[str] | None = None
) -> Callable[[str], bool]:
    """What tells whether a word of that text is another inflection of the keyword.

    Args:
        form: the keyword.
        language: the language of both; empty if it is not known.
        text: its language is taken then.
        asked: receives the words for which the language matters.
    """
    if not form.word.isalpha():
        return lambda _word: False
    if _HANGUL.match(form.word):
        return lambda word: word == form.root or is_korean_ending(word[len(form.root) :])
    stem: Callable[[str], str] | None = None

    def same(word: str) -> bool:
        nonlocal stem
        if asked is not None:
            asked.append(word)
        if stem is None:
            stem = stemmer(language or (language_of(text, _RUNS.findall(text)) if text else ""))
        return len(word) <= _LONGEST and stem(word) == stem(form.word)

    return same


def _boundary(text: str, at: int) -> float | None:
    """What a word counts that begins or ends there; None inside a word.

    It counts in full at the edge of a word, and less at the edge of a part of an identifier.
    """
    if at == 0 or at >= len(text):
        return 1.0
    before, after = text[at - 1], text[at]
    if not _in_word(before) or not _in_word(after):
        return 1.0
    if before == "_" or after == "_" or before.isdigit() != after.isdigit():
        return _PART
    return None


def _extent(text: str, at: int, most: int) -> tuple[int, int]:
    """Where the word around a place begins and ends, or at most so far from that place."""
    begin = end = at
    while at - begin <= most and begin > 0 and _is_letter(text[begin - 1]):
        begin -= 1
    while end - at <= most and end < len(text) and _is_letter(text[end]):
        end += 1
    return begin, end


def _is_letter(character: str) -> bool:
    return character.isalpha() and not _SPACELESS.match(character)


def _in_word(character: str) -> bool:
    return (character.isalnum() or character == "_") and not _SPACELESS.match(character)


def is_one_edit(one: str, other: str) -> bool:
    """Whether two different words differ by one added, missing, wrong or exchanged character."""
    begin = _common(one, other)
    one, other = one[begin:], other[begin:]
    end = _common(one[::-1], other[::-1])
    one, other = one[: len(one) - end], other[: len(other) - end]
    return (max(len(one), len(other)) == 1) or (
        len(one) == len(other) == 2 and one == other[::-1]  # noqa: PLR2004 - two neighbours
    )


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
