"""What keyword search knows about languages: stop words, inflections and Korean particles.

A language is chosen for each text by its stop words, and by letters that few others have.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from typing import Any

_SETS = {
    language: frozenset(words.split())
    for language, _, words in (
        line.partition(":")
        for line in files(__package__).joinpath("stop_words.txt").read_text("utf-8").splitlines()
    )
}
"""Stop words by language; without accents, as `fold` leaves them."""
_LANGUAGES = {
    word: [language for language, known in _SETS.items() if word in known]
    for word in frozenset().union(*_SETS.values())
}
"""The languages of each stop word."""

_LETTERS = {
    "german": "ß", "spanish": "ñ¿¡", "french": "çœêèù", "polish": "łąęśżź", "czech": "řůěď",
    "portuguese": "ãõ", "hungarian": "őű", "turkish": "ığş", "romanian": "țșă", "swedish": "å",
    "danish": "ø", "norwegian": "ø",
}  # fmt: skip
_EVIDENCE = {letter: language for language, letters in _LETTERS.items() for letter in letters}

_BY_SCRIPT = (
    (re.compile("[a-z]"), ""),
    (re.compile("[\u0430-\u044f]"), "russian"),
    (re.compile("[\u03b1-\u03c9]"), "greek"),
    (re.compile("[\u0621-\u064a]"), "arabic"),
    (re.compile("[\u0561-\u0586]"), "armenian"),
)

COMPOUNDING = frozenset({"german", "dutch", "swedish", "danish", "norwegian", "finnish"})
"""Languages that join words: a long keyword may be the end of a word."""

_TWICE = frozenset({"french", "spanish", "portuguese", "dutch"})
"""Languages in which a stem may have a stem: ciudades, ciudad; and payée, folded, payé."""

_SAMPLE = 60
"""Words of a text that are looked at to choose its language."""
_SCRIPT_SAMPLE = 400

_ASKING = re.compile(
    "什么|什麼|哪个|哪個|哪里|哪裡|哪儿|为什么|多少|怎么|怎麼|怎样|谁|誰|几点|何时|吗|呢|嗎"
    "|ですか|ますか|でしたか|ましたか|どのくらい|いくら|どこ|いつ|だれ|なぜ|どう"
)
_KOREAN_ASKING = frozenset([
    "무엇", "무엇인가요", "뭐", "뭐라고", "언제", "어디", "어디에", "어디서", "누구", "누구야",
    "누구인가요", "누가", "무슨", "몇", "어떤", "어느", "왜", "어떻게", "있나요", "있어요",
    "인가요", "하나요", "되나요", "있습니까", "합니까", "수",
])  # fmt: skip
_PARTICLES = [
    "에게서", "한테서", "으로부터", "로부터", "에서는", "에서도", "에서의", "까지는", "부터는",
    "이라고", "으로는", "이라는", "에서", "에게", "한테", "께서", "으로", "까지", "부터", "처럼",
    "보다", "마다", "조차", "밖에", "이나", "라고", "라는", "와는", "과는", "에는", "에도", "로는",
    "은", "는", "이", "가", "을", "를", "에", "의", "로", "와", "과", "도", "만", "나",
]  # fmt: skip
_KOREAN_REST = re.compile(
    rf"({'|'.join(_PARTICLES)})+|(하|한|할|합|했|해|되|된|될|됩|됐|이|인|일|입|였|이었).*"
)
_KOREAN_END = re.compile(
    rf"(?<=[가-힣][가-힣])({'|'.join(_PARTICLES)}|(하|한|할|합|했|해|되|된|될|됩|됐)[가-힣]{{0,3}})$"
)


def without_asking(folded: str) -> str:
    """A Chinese or Japanese question without the words that only ask."""
    return _ASKING.sub(" ", folded)


def language_of(text: str, words: list[str]) -> str:
    """The language of a text by its name in Snowball; empty if nothing decides.

    Args:
        text: the text, with its accents.
        words: its words, folded.
    """
    sample = words[:_SAMPLE]
    found = [
        language
        for word in filter(_LANGUAGES.__contains__, sample)  # few
        for language in _LANGUAGES[word]
    ]
    if not text.isascii():
        found += [language for letter, language in _EVIDENCE.items() if letter in text]
    if found:
        return max(_SETS, key=found.count)
    if text.isascii():
        return ""
    sample_text = " ".join(sample)[:_SCRIPT_SAMPLE]
    return next((language for script, language in _BY_SCRIPT if script.search(sample_text)), "")


def is_stop_word(word: str, language: str) -> bool:
    """Whether a folded word only holds a sentence together."""
    return word in _SETS.get(language, ()) or word in _KOREAN_ASKING


@lru_cache(maxsize=32)
def stemmer(language: str) -> Callable[[str], str]:
    """What reduces a folded word of a language to its stem; for an unknown one, as English."""
    import Stemmer  # noqa: PLC0415 - only a search needs it

    known = language in Stemmer.algorithms()
    made: Any = Stemmer.Stemmer(language if known else "english")
    stem: Callable[[str], str] = made.stemWord
    if language in _TWICE:
        return lambda word: stem(stem(word))
    return stem


def latin_languages() -> list[str]:
    """The languages that a word in Latin letters may be from."""
    return [language for language in _SETS if language != "russian"]


def korean_base(word: str) -> str:
    """A Korean word without its particle or verb ending."""
    return _KOREAN_END.sub("", word)


def is_korean_ending(rest: str) -> bool:
    """Whether this only inflects the Korean word before it."""
    return _KOREAN_REST.fullmatch(rest) is not None
