"""Finds and redacts secrets in a memory, in its JSON form.

All texts of a memory are searched as one, so that the words beside a secret help to find it: each
on a line of its own, and a field of the metadata as its name, a colon and its value.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tribal_mcp.portability.memory import MADE_BY, MARK, REDACTED_KINDS, kinds_in
from tribal_mcp.redaction.detector import Detector, Found

_WITHOUT_TEXT = {"embedding", "created_at", "updated_at", "confidence", REDACTED_KINDS}
_PLAIN = {"content", "context", "tags", "source_instance", "source_type", "metadata"}
_IDS = {"id", "supersedes", "related_to"}
_FIELD = "\n\x1e"
"""Before the name of a field; the rules of secrets.yml know it."""
_REPEATED_FROM = 6
"""Characters of a secret from which on each occurrence in the memory is redacted."""


@dataclass(slots=True)
class Text:
    """A text of a memory, or the name of a field in it.

    Attributes:
        name: the top-level field that it is in.
        before: what stands before it in the text that is searched.
        text: itself.
    """

    name: str
    before: str
    text: str


Span = tuple[Text, int, int, str]
"""A secret in a text: its start, its end and its kind."""


@dataclass(slots=True)
class SecretsIn:
    """The secrets of one memory.

    Attributes:
        fields: the memory without them.
        kinds: what they are, sorted.
        places: the top-level fields that they are in, sorted.
        marks: what takes the place of each.
        in_ids: whether one is in an id, its own or a linked one, where it can't be replaced.
        lost_vector: whether the memory had a vector, which encodes its original text.
    """

    fields: dict[str, Any]
    kinds: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)
    in_ids: bool = False
    lost_vector: bool = False

    def masked(self, text: str) -> str:
        """A text without these secrets."""
        return _replaced(text, self.marks)


def secrets_in(fields: dict[str, Any], detector: Detector) -> SecretsIn | None:
    """The secrets of a memory; None if it has none.

    Args:
        fields: its JSON form.
        detector: what finds them.
    """
    texts = list(_texts(fields))
    searched = _searched(texts)
    found = detector.find(searched)
    if not found:
        return None
    result = SecretsIn(fields)
    kinds, places = set[str](), set[str]()
    number = max((int(mark[2]) for mark in MARK.finditer(searched)), default=0)
    while spans := _by_text(texts, found):
        for one, start, end, kind in spans:
            secret = one.text[start:end]
            if secret not in result.marks:
                number += 1
                result.marks[secret] = f"[redacted:{kind}:{number}]"
            kinds.add(kind)
        redacted = _redacted(texts, spans, result.marks)
        places |= {one.name for one, new in zip(texts, redacted, strict=True) if one.text != new}
        others = [new for one, new in zip(texts, redacted, strict=True) if one.name not in _IDS]
        result.fields = _rebuilt(result.fields, iter(others))
        # What was redacted may have hidden something else. An id keeps its secret.
        texts = [one for one in _texts(result.fields) if one.name not in _IDS]
        found = detector.find(_searched(texts))
    result.in_ids = bool(places & _IDS)
    result.kinds, result.places = sorted(kinds), sorted(places)
    result.fields = _marked(result)
    return result


def redacted_text(text: str, detector: Detector) -> str:
    """A text outside of a memory, with marks in the place of secrets."""
    one = Text("", "", text)
    spans = [(one, found.start, found.end, found.kind) for found in detector.find(text)]
    marks = {text[s:e]: f"[redacted:{kind}:{n}]" for n, (_, s, e, kind) in enumerate(spans, 1)}
    return _redacted([one], spans, marks)[0]


def _searched(texts: Iterable[Text]) -> str:
    return "".join([part for one in texts for part in (one.before, one.text)])


def _texts(fields: dict[str, Any]) -> Iterator[Text]:
    """The texts of a memory, in a fixed order."""
    for name, value in fields.items():
        if name in _WITHOUT_TEXT:
            continue
        if name in _PLAIN or name in _IDS:
            yield from _texts_in(name, "\n", value)
        else:
            yield Text("extra", _FIELD, name)
            yield from _texts_in("extra", ": ", value)


def _texts_in(name: str, before: str, value: object) -> Iterator[Text]:
    if type(value) is str:
        yield Text(name, before, value)
    elif type(value) is int:
        yield Text(name, before, str(value))
    elif type(value) is list:
        for item in value:
            yield from _texts_in(name, before, item)
    elif type(value) is dict:
        for key, item in value.items():
            yield Text(name, _FIELD, key)
            is_one = type(item) in (str, int)
            yield from _texts_in(name, ": " if is_one else f"{_FIELD}{key}: ", item)


def _by_text(texts: Sequence[Text], found: Iterable[Found]) -> list[Span]:
    """Where in which text the secrets are: for each, its own text, start, end and kind."""
    spans: list[Span] = []
    begin, rest = 0, deque(found)
    for one in texts:
        begin += len(one.before)
        end = begin + len(one.text)
        while rest and rest[0].end <= begin:
            rest.popleft()  # it is only in what stands before the text
        while rest and rest[0].start < end:
            start, stop = max(rest[0].start, begin), min(rest[0].end, end)
            if one.text[start - begin : stop - begin].strip():
                spans.append((one, start - begin, stop - begin, rest[0].kind))
            if rest[0].end > end:
                break  # it goes on in the next text
            rest.popleft()
        begin = end
    return spans


def _redacted(texts: Iterable[Text], spans: Sequence[Span], marks: Mapping[str, str]) -> list[str]:
    """Each text with marks in the place of secrets, wherever they occur again."""
    new = {id(one): one.text for one in texts}
    for one, start, end, _ in reversed(spans):
        text = new[id(one)]
        new[id(one)] = text[:start] + marks[one.text[start:end]] + text[end:]
    repeated = {secret: mark for secret, mark in marks.items() if len(secret) >= _REPEATED_FROM}
    return [_replaced(text, repeated) for text in new.values()]


def _replaced(text: str, marks: Mapping[str, str]) -> str:
    """The text with marks in the place of secrets; marks in it stay."""
    if not marks:
        return text
    longest_first = sorted(map(re.escape, marks), key=len, reverse=True)
    pattern = "|".join([MARK.pattern, *longest_first])
    return re.sub(pattern, lambda match: marks.get(match[0], match[0]), text)


def _rebuilt(fields: dict[str, Any], new: Iterator[str]) -> dict[str, Any]:
    """The memory with new texts, in the order of `_texts`; ids stay."""
    result: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _WITHOUT_TEXT or name in _IDS:
            result[name] = value
        else:
            key = name if name in _PLAIN else next(new)
            result[key] = _rebuilt_value(value, new)
    return result


def _rebuilt_value(value: object, new: Iterator[str]) -> object:
    if type(value) is str:
        return next(new)
    if type(value) is int:
        text = next(new)
        return value if text == str(value) else text
    if type(value) is list:
        return [_rebuilt_value(item, new) for item in value]
    if type(value) is dict:
        return {next(new): _rebuilt_value(item, new) for item in value.values()}
    return value


def _marked(result: SecretsIn) -> dict[str, Any]:
    """The memory without its vector, which encodes the original text, and marked as redacted."""
    fields = result.fields
    if fields.get("embedding") is not None:
        result.lost_vector = True
        fields["embedding"] = None
        if type(fields.get(MADE_BY)) is str:
            del fields[MADE_BY]
    fields[REDACTED_KINDS] = sorted({*result.kinds, *kinds_in(fields)})
    return fields
