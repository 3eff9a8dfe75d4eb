"""Finds characters in a text that a person can't see but a model reads.

Instructions can be smuggled into a memory with such characters: direction marks, zero-width
characters, whole sentences in invisible letters. They are reported when a memory is shown, and
never removed.
"""

import re
import unicodedata
from collections import Counter

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff9-\ufffb\ue000-\uf8ff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
# A zero-width joiner within an emoji is part of what is visible.
_JOINED = re.compile(
    "(?<=[\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])\u200d(?=[\u2190-\u2bff\U0001f000-\U0001faff])"
)
_KINDS = 5
"""Kinds of characters that are named, the most frequent first; others are counted together."""


def hidden_characters(text: str) -> list[str]:
    """The invisible characters in a text, such as "U+200B ZERO WIDTH SPACE (3)"."""
    if text.isascii() and text.isprintable():
        return []
    counts = Counter(_INVISIBLE.findall(_JOINED.sub("", text))).most_common()
    named = [f"{_name(character)} ({count:,})" for character, count in counts[:_KINDS]]
    rest = sum(count for _, count in counts[_KINDS:])
    return [*named, f"{rest:,} of other kinds"] if rest else named


def _name(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
