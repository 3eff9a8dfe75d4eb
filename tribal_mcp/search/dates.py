"""The period that a question mentions: "in May 2026", "last May", "vorige Woche", "上个月"."""

import re
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, date, datetime, timedelta

from tribal_mcp.search.folding import fold

_MONTH_NAMES = (
    "january januar janvier enero janeiro gennaio januari январь января январе",
    "february februar fevrier febrero fevereiro febbraio februari февраль февраля феврале",
    "march marz maerz mars marzo marco maart март марта марте",
    "april avril abril aprile апрель апреля апреле",
    "may mai mayo maio maggio mei май мая мае",
    "june juni juin junio junho giugno июнь июня июне",
    "july juli juillet julio julho luglio июль июля июле",
    "august aout agosto augustus август августа августе",
    "september septembre septiembre setembro settembre сентябрь сентября сентябре",
    "october oktober octobre octubre outubro ottobre октябрь октября октябре",
    "november novembre noviembre novembro ноябрь ноября ноябре",
    "december dezember decembre diciembre dezembro dicembre декабрь декабря декабре",
)
_SHORT = (
    "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "okt", "nov", "dec",
    "dez",
)  # fmt: skip
"""Months that are also names or words of other languages: only with a day or a year."""
_MONTHS = {name: number for number, names in enumerate(_MONTH_NAMES, 1) for name in names.split()}
_MONTHS |= {short: _MONTHS[name] for short in _SHORT for name in _MONTHS if name.startswith(short)}
_NAME = "|".join(sorted(_MONTHS, key=len, reverse=True))
_AMBIGUOUS = {"may", "march", "mars", "mei", "mai"}
"""Months that are also words: only as names, or after a word such as "in"."""
_BEFORE_MONTH = re.compile(
    r"\b(in|im|en|au|last|since|of|de|during|this|early|late|until|before|after|letzten|le)\s+$",
    re.IGNORECASE,
)
_LAST_BEFORE = re.compile(
    r"\b(last|letzten|letztem|vorigen|vorletzten|прошлом|прошлого)\s+$", re.IGNORECASE
)
_LAST_AFTER = re.compile(r"^\s+(dernier|pasado|passado|scorso)\b", re.IGNORECASE)

_ISO = re.compile(r"\b(\d{4})-(\d\d)(?:-(\d\d))?\b")
_DOTTED = re.compile(r"\b(\d{1,2})\.\s?(\d{1,2})\.\s?(\d{4})\b")
_ASIAN = re.compile(r"(?:(\d{4})\s*[年년]\s*)?(\d{1,2})\s*[月월](?:\s*(\d{1,2})\s*[日号號일])?")
_NAMED = re.compile(
    rf"(?:\b(\d{{1,2}})(?:st|nd|rd|th|\.|er)?\s+(?:of\s+|de\s+)?)?\b({_NAME})\b\.?"
    rf"(?:\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?!\s*[:\d]))?(?:,?\s+(?:de\s+|of\s+)?(\d{{4}})\b)?"
)
_YEAR = re.compile(
    r"(?:\b(?:in|im|en|в)\s+(?:jahr\s+|year\s+)?((?:19|20)\d\d)\b|((?:19|20)\d\d)\s*[年년])"
)

_RELATIVE = {
    ("day", 0): "today heute aujourd'hui hoy сегодня 今天 今日 오늘",
    ("day", 1): "yesterday gestern hier ayer ontem ieri вчера 昨天 昨日 어제",
    (
        "week",
        0,
    ): "this_week diese_woche cette_semaine esta_semana на_этой_неделе 这周 本周 今週 이번_주",
    ("week", 1): "last_week letzte_woche vorige_woche letzter_woche voriger_woche "
    "la_semaine_derniere la_semana_pasada на_прошлой_неделе 上周 上星期 先週 지난주",
    (
        "month",
        0,
    ): "this_month diesen_monat diesem_monat ce_mois-ci este_mes в_этом_месяце 这个月 本月 "
    "今月 이번_달",
    ("month", 1): "last_month letzten_monat letztem_monat vorigen_monat le_mois_dernier "
    "el_mes_pasado в_прошлом_месяце 上个月 先月 지난달",
    ("year", 0): "this_year dieses_jahr diesem_jahr cette_annee este_ano в_этом_году 今年 올해",
    ("year", 1): "last_year letztes_jahr letztem_jahr voriges_jahr l'annee_derniere el_ano_pasado "
    "в_прошлом_году 去年 昨年 작년",
}
"""Units of time, how many back, and the words for it, folded; `_` is a space."""
_RELATIVE_FORMS = [
    (unit, back, re.compile(rf"(?<!\w)(?:{words.replace(' ', '|').replace('_', ' ')})"))
    for (unit, back), words in _RELATIVE.items()
]


@dataclass(frozen=True, slots=True)
class Period:
    """Some days.

    Attributes:
        first: the first day.
        last: the last day.
        words: how the question mentions it, folded.
    """

    first: date
    last: date
    words: str = ""

    def includes(self, moment: datetime) -> bool:
        """Whether a moment is in it, in UTC."""
        return self.first <= moment.astimezone(UTC).date() <= self.last

    def in_words(self) -> str:
        """It, to use in a sentence: "May 2026" is "2026-05-01 to 2026-05-31"."""
        if self.first == self.last:
            return self.first.isoformat()
        return f"{self.first.isoformat()} to {self.last.isoformat()}"


def mentioned_period(question: str, now: datetime) -> Period | None:
    """The period that a question mentions first; None if it mentions none.

    A month without a year is the latest one that has begun.

    Args:
        question: in any of the languages above.
        now: the time of the question.
    """
    today, folded = now.astimezone(UTC).date(), fold(question)
    try:
        found = (
            _iso(folded) or _dotted(folded) or _named(question, folded, today)
            or _asian(folded, today) or _relative(folded, today) or _year(folded)
        )  # fmt: skip
    except ValueError:  # no such day, as 31 June
        return None
    return found if found and found.last.year < MAXYEAR else None


def _iso(folded: str) -> Period | None:
    found = _ISO.search(folded)
    if not found:
        return None
    year, month, day = (int(n or 0) for n in found.groups())
    return _month_or_day(year, month, day, found[0])


def _dotted(folded: str) -> Period | None:
    found = _DOTTED.search(folded)
    if not found:
        return None
    day, month, year = map(int, found.groups())
    return _month_or_day(year, month, day, found[0])


def _named(question: str, folded: str, today: date) -> Period | None:
    for found in _NAMED.finditer(folded):
        day, name, day_after, year = found.groups()
        if name in _SHORT and not (day or day_after or year):
            continue
        before, after = folded[: found.start(2)], folded[found.end(2) :]
        is_name = len(question) == len(folded) and question[found.start(2)].isupper()
        if name in _AMBIGUOUS and not (day or day_after or year or _BEFORE_MONTH.search(before)
                                       or (is_name and before.strip())):  # fmt: skip
            continue
        is_last = _LAST_BEFORE.search(before) or _LAST_AFTER.search(after)
        which = int(year) if year else _latest(_MONTHS[name], today, before_this=bool(is_last))
        return _month_or_day(which, _MONTHS[name], int(day or day_after or 0), found[0])
    return None


def _asian(folded: str, today: date) -> Period | None:
    found = _ASIAN.search(folded)
    if not found:
        return None
    year, month, day = (int(n or 0) for n in found.groups())
    return _month_or_day(year or _latest(month, today), month, day, found[0])


def _relative(folded: str, today: date) -> Period | None:
    for kind, back, form in _RELATIVE_FORMS:
        if found := form.search(folded):
            if kind == "day":
                day = today - timedelta(days=back)
                return Period(day, day, found[0])
            if kind == "week":
                monday = today - timedelta(days=today.weekday() + 7 * back)
                return Period(monday, monday + timedelta(days=6), found[0])
            if kind == "month":
                some_day = today.replace(day=1) - timedelta(days=1) if back else today
                return _month_or_day(some_day.year, some_day.month, 0, found[0])
            year = today.year - back
            return Period(date(year, 1, 1), date(year, 12, 31), found[0])
    return None


def _year(folded: str) -> Period | None:
    found = _YEAR.search(folded)
    if not found:
        return None
    year = int(found[1] or found[2])
    return Period(date(year, 1, 1), date(year, 12, 31), found[0])


def _latest(month: int, today: date, *, before_this: bool = False) -> int:
    """The year of the latest month with that number, or of the latest one that has ended."""
    has_begun = month < today.month if before_this else month <= today.month
    return today.year if has_begun else today.year - 1


def _month_or_day(year: int, month: int, day: int, words: str) -> Period:
    if day:
        return Period(date(year, month, day), date(year, month, day), words)
    next_month = date(year + month // 12, month % 12 + 1, 1)
    return Period(date(year, month, 1), next_month - timedelta(days=1), words)
