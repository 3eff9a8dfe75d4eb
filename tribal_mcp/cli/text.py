"""Text for a terminal: within its width, and with nothing unprintable."""

import json
import re
import shutil
import textwrap

_WIDEST = 100
_COMMAND = re.compile(r"`[^`]*`")
_HELD = "\0"


def width() -> int:
    """The columns to use."""
    return min(shutil.get_terminal_size().columns, _WIDEST)


def filled(text: str, start: str = "", margin: str = "") -> str:
    """The text within the width of the terminal; a command in backticks stays on one line.

    Args:
        text: one paragraph.
        start: goes before the first line.
        margin: goes before each further line.
    """
    held = _COMMAND.sub(lambda match: match[0].replace(" ", _HELD), text)
    return textwrap.fill(
        held,
        width=width(),
        initial_indent=start,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    ).replace(_HELD, " ")


def printable(text: str) -> str:
    """The text with escapes for what a terminal would obey or hide."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_json(text: str) -> str:
    """JSON text with the same meaning and escapes for what a terminal would obey or hide."""
    return "".join(
        c if c.isprintable() or c == "\n" else json.dumps(c, ensure_ascii=True)[1:-1] for c in text
    )
