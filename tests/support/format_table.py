"""The formats in docs/formats.md, generated from their classes.

`python -m tests.support.format_table` writes them into the page.
"""

from pathlib import Path

from tribal_mcp.interchange.base import Format
from tribal_mcp.interchange.formats import BUILT_IN

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
_BEGIN, _END = "<!-- generated: formats -->\n", "<!-- end -->\n"


def _cell(text: str) -> str:
    text = text.replace("|", r"\|")
    return f"`{text}`" if "[" in text and "`" not in text else text


def section(kind: type[Format]) -> str:
    """What the page says about one format."""
    rows = [f"| {_cell(theirs)} | {_cell(ours)} |" for theirs, ours in kind.fields.items()]
    left_out = "".join(f"\n- {reason}" for reason in kind.leaves_out) or " nothing."
    written = ""
    if kind.writes:
        kinds = f"a file ({', '.join(kind.suffixes)})" if kind.suffixes else "a folder"
        lost = "".join(f"\n- {what}" for what in kind.loses) or " nothing."
        written = f"\nWritten as {kinds}: {kind.written}. Lost, if a memory has it:{lost}\n"
    return "\n".join(
        [
            f"### {kind.name}: {kind.title}\n",
            f"Where: {kind.places}. Recognised by: {kind.layout}.\n",
            "| in the source | in the memory |",
            "|---|---|",
            *rows,
            f"\nLeft out:{left_out}\n{written}",
        ]
    )


def sections() -> str:
    """A list of the formats, then a section for each."""
    kinds = sorted(BUILT_IN, key=lambda kind: kind.name)
    listed = "".join(
        f"- `{kind.name}`: {kind.title}{' (also written)' * bool(kind.writes)}\n" for kind in kinds
    )
    return f"\n## The formats\n\n{listed}\n" + "\n".join(map(section, kinds)) + "\n"


def with_sections(page: str) -> str:
    """The page with the part between its marks replaced."""
    before, _, rest = page.partition(_BEGIN)
    return before + _BEGIN + sections() + _END + rest.partition(_END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_sections(PAGE.read_text()))
