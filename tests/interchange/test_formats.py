"""Which format a source has, and formats of other packages."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interchange.samples import read_sample, source_of
from tribal_mcp.errors import UsageError
from tribal_mcp.interchange.formats import formats, named, recognise

NOTES = """
from tribal_mcp.interchange.base import CERTAIN, Evidence, Format, attempt, derived_id, memory

class MyNotes(Format):
    name = "my-notes"
    title = "my notes"
    places = "my folder"
    layout = "a first line `my notes`"
    fields = {"line": "content"}

    def recognise(self, source):
        is_mine = source.peek(source.paths()[0]).text.startswith("my notes")
        return Evidence(CERTAIN, "its first line") if is_mine else None

    def read(self, source, options):
        for number, line in enumerate(source.peek(source.paths()[0]).text.split("\\n")[1:], 2):
            yield attempt(f"line {number}", memory, derived_id(self.name, line), line)
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, in which `my_notes` has a format."""
    info = tmp_path / "my_notes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-notes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tribal_mcp.formats]\nmy-notes = my_notes:MyNotes\n")
    (tmp_path / "my_notes.py").write_text(NOTES)
    monkeypatch.syspath_prepend(tmp_path)
    formats.cache_clear()
    yield tmp_path
    formats.cache_clear()
    sys.modules.pop("my_notes", None)


@pytest.mark.usefixtures("packages")
def test_a_format_of_another_package_is_used() -> None:
    conversion, entries, _ = read_sample(source_of(b"my notes\nLikes tea.\nLikes cake."))
    assert conversion.format.name == "my-notes"
    assert [entry.content for entry in entries] == ["Likes tea.", "Likes cake."]


def test_a_format_of_another_package_that_fails_to_load_is_named(packages: Path) -> None:
    (packages / "my_notes.py").write_text("import no_such_module")
    with pytest.raises(UsageError, match=r"'my-notes' of another package can't be loaded: Module"):
        formats()


def test_a_format_of_another_package_can_not_replace_one(packages: Path) -> None:
    (packages / "my_notes.py").write_text(NOTES.replace('name = "my-notes"', 'name = "mem0"'))
    with pytest.raises(UsageError, match="its name is taken"):
        formats()


def test_a_source_that_two_formats_claim_equally_is_refused(packages: Path) -> None:
    twin = '\n\nclass Twin(MyNotes):\n    name = "twin"\n'
    (packages / "my_notes.py").write_text(NOTES + twin)
    points = packages / "my_notes-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text() + "twin = my_notes:Twin\n")
    source = source_of(b"my notes\nLikes tea.")
    with pytest.raises(UsageError, match=r"could be any of these formats: .*Name the one"):
        recognise(source)
    assert named("twin", source).format.name == "twin"


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no format 'chatgtp'. The formats are .*chatgpt"):
        named("chatgtp", source_of(b"x"))
