"""Finds secrets and personal data in a text.

The rules are Kingfisher's own catalog, `secrets.yml` and, for personal data, `personal_data.yml`.
Nothing is sent anywhere: its validation of what it finds is never called.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tribal_mcp.config import cache_dir
from tribal_mcp.errors import UsageError
from tribal_mcp.portability.memory import MARK

if TYPE_CHECKING:
    from kingfisher_sdk import Finding, Scanner

_FOLDER = Path(__file__).parent
_NAMESPACE = re.compile(r"^[a-z]+\.(?:secrets/)?|\.\d+$")
_PERSONAL_DATA = {"card-number", "email-address", "iban", "phone-number"}
"""The kinds that `personal_data.yml` finds."""


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """A secret in a text: the characters from `start` to before `end`."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Detector:
    """Finds secrets in texts; several threads may use one.

    Attributes:
        personal_data: also find e-mail addresses, phone numbers, IBANs and card numbers.
    """

    personal_data: bool = False

    def find(self, text: str) -> list[Found]:
        """The secrets in a text, in their order; they don't overlap.

        Raises:
            UsageError: the packages that it needs are not installed.
        """
        # NULs would make the scanner decode the text as UTF-16. A character that UTF-8 can't encode
        # becomes one byte, so that places stay.
        data = text.replace("\0", " ").encode(errors="replace")
        findings = _scanner().scan(data)
        if not findings:
            return []
        marks = [mark.span() for mark in MARK.finditer(text)]
        found: list[Found] = []
        for one in sorted(_located(data, findings)):
            if one.kind in _PERSONAL_DATA and not self.personal_data:
                continue
            if any(one.start < end and start < one.end for start, end in marks):
                continue
            if one.kind == "phone-number" and not _is_phone_number(text[one.start : one.end]):
                continue
            if found and one.start < found[-1].end:
                before = found.pop()
                one = Found(before.start, max(before.end, one.end), before.kind)  # noqa: PLW2901
            found.append(one)
        return found


@lru_cache(maxsize=1)
def _scanner() -> "Scanner":
    """The rules, which take a second to load, and several to compile for the first time."""
    try:
        import phonenumbers  # noqa: F401, PLC0415 - optional, and large
        from kingfisher_sdk import Rules, Scanner  # noqa: PLC0415
    except ImportError:
        raise UsageError(
            "The search for secrets needs the packages kingfisher-secret-scanner and "
            "phonenumberslite. Install them where tribal-mcp is installed."
        ) from None
    # All in one: each set of rules would be compiled again.
    paths = [_FOLDER / "secrets.yml", _FOLDER / "personal_data.yml"]
    return Scanner(Rules(paths, cache_dir=cache_dir() / "secret-rules"))


def _located(data: bytes, findings: "list[Finding]") -> Iterator[Found]:
    """The findings, by characters instead of bytes."""
    is_ascii = data.isascii()
    for finding in findings:
        if not finding.visible:
            continue  # only helps to validate another
        start, end = finding.location["start_offset"], finding.location["end_offset"]
        if not is_ascii:
            length = len(data[start:end].decode(errors="replace"))
            start = len(data[:start].decode(errors="replace"))
            end = start + length
        yield Found(start, end, _NAMESPACE.sub("", finding.rule_id))


def _is_phone_number(text: str) -> bool:
    """Whether a country's numbering plan has the number."""
    import phonenumbers  # noqa: PLC0415 - optional

    number = f"+{text[2:]}" if text.startswith("00") else text
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return False
