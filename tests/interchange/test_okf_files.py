"""A memory as a Markdown file: nothing is lost, and edits are recognised."""

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interchange.samples import read_sample, source_at
from tests.support.entries import entries, many, texts
from tribal_mcp.errors import EntryError
from tribal_mcp.files.origins import decoded
from tribal_mcp.interchange.base import Memories
from tribal_mcp.interchange.formats import formats, recognise
from tribal_mcp.interchange.frontmatter import split_frontmatter
from tribal_mcp.interchange.okf_files import file_of, id_in, key_in, key_of, memory_of, name_of
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import EPOCH, MemoryEntry, with_vector
from tribal_mcp.portability.memory_json import digest, entry_fields
from tribal_mcp.stores.base import EDITED_SINCE, UNDATED

MODEL = EmbeddingMetadata("some/model", 3)
LINES = st.lists(
    st.sampled_from(
        ["", " ", "\t", "---", "x", "  indented", "a  ", "\r", "# h", "<<<<<<< a", "=======", "é"]
    ),
    max_size=6,
)
TEXTS = st.builds(lambda lines, end: end.join(lines), LINES, st.sampled_from(["\n", "\r\n", "\r"]))


def back(entry: MemoryEntry) -> MemoryEntry:
    found = memory_of(decoded(file_of(entry)))
    assert found
    assert found[1] == digest(found[0]) == digest(entry)
    return found[0]


@given(entries())
def test_every_memory_comes_back_the_same(entry: MemoryEntry) -> None:
    entry = with_vector(entry, None)
    entry.extra.pop("embedding_model", None)
    assert back(entry) == entry
    assert entry_fields(back(entry)) == entry_fields(entry)
    assert file_of(back(entry)) == file_of(entry)


@given(TEXTS | texts)
def test_every_text_comes_back_to_the_byte(text: str) -> None:
    assert back(MemoryEntry(id="x", content=text)).content == text


@given(entries())
def test_other_programs_can_read_the_frontmatter(entry: MemoryEntry) -> None:
    values, body = split_frontmatter(decoded(file_of(entry)))
    assert values["type"]
    assert values["x_tribal"]["id"] == entry.id
    assert id_in(decoded(file_of(entry))) == entry.id
    if not {"text", "start", "end", "newlines"} & values["x_tribal"].keys():
        assert body.strip("\n") == entry.content.strip("\n")


@given(st.lists(texts, max_size=4), texts, st.floats(0, 1))
def test_an_edit_of_any_field_is_recognised(
    tags: list[str], context: str, confidence: float
) -> None:
    before = MemoryEntry(id="x", content="text")
    after = replace(before, tags=tags, context=context, confidence=confidence)
    pairs = zip(file_of(before).split(b"\n"), file_of(after).split(b"\n"), strict=False)
    written_for = next(one for one, _ in pairs if one.startswith(b"  hash:"))
    edited = re.sub(rb"(?m)^  hash:.*$", lambda _: written_for, file_of(after))
    found = memory_of(decoded(edited))
    assert found
    assert found[0] == after
    assert (digest(found[0]) == found[1]) == (after == before)


def test_editors_and_git_may_change_line_ends_and_the_end_of_the_file() -> None:
    entry = MemoryEntry(id="x", content="one\ntwo\n\n", tags=["a"])
    for changed in (
        file_of(entry).replace(b"\n", b"\r\n"),
        file_of(entry).rstrip(b"\n"),
        file_of(entry) + b"\n\n",
        b"\xef\xbb\xbf" + file_of(entry),
    ):
        found = memory_of(decoded(changed))
        assert found
        assert found[0] == entry


def test_a_rewritten_block_is_still_read() -> None:
    entry = MemoryEntry(id="x", content="text", tags=["a b"], related_to=["y"], confidence=0.5)
    text = decoded(file_of(entry))
    rewritten = (
        text.replace('  related_to: ["y"]', "  related_to:\n  - y")
        .replace('id: "x"', "id: x")
        .replace('tags: ["a b"]', "tags:\n- a b")
    )
    assert rewritten != text
    found = memory_of(rewritten)
    assert found
    assert found == (entry, digest(entry))


def test_a_person_may_write_tags_as_one_text() -> None:
    text = decoded(file_of(MemoryEntry(id="x", content="text", tags=["a"])))
    found = memory_of(text.replace('tags: ["a"]', "tags: b, c"))
    assert found
    assert found[0].tags == ["b", "c"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("text", "<<<<<<< a\none\n=======\ntwo\n>>>>>>> b", "conflict markers"),
        ("type:", "<<<<<<< a\ntype: x\n=======\ntype: y\n>>>>>>> b\n#", "conflict markers"),
        ('  id: "x"', "  id: [x]", "id is not text"),
        ('  id: "x"', "  id: 5", "id is not text"),
        ("  confidence: 0.5", "  confidence: 5", "confidence is 5"),
        ("  confidence: 0.5", "  metadata: 5", "metadata is not a mapping"),
        ("  confidence: 0.5", '  extra: {"content": "x"}', "'content'"),
        ("  confidence: 0.5", "  end: 5", "no text"),
        ('"at": "', '"at": "when ', "updated_at"),
        ("type:", "tags: {a: b}\ntype:", "not a list of texts"),
    ],
    ids=lambda value: value[:12].strip(),
)
def test_what_can_not_be_read_is_refused(old: str, new: str, problem: str) -> None:
    text = decoded(file_of(MemoryEntry(id="x", content="text", confidence=0.5)))
    assert old in text
    with pytest.raises(EntryError, match=problem):
        memory_of(text.replace(old, new, 1))


def test_a_text_about_conflict_markers_is_no_conflict() -> None:
    text = "<<<<<<< a\none\n=======\ntwo\n>>>>>>> b"
    assert back(MemoryEntry(id="x", content=text)).content == text


def test_a_memory_without_a_date_has_none_in_the_file() -> None:
    entry = MemoryEntry(
        id="x", content="text", created_at=EPOCH, updated_at=EPOCH, extra={UNDATED: True}
    )
    assert b"1970" not in file_of(entry)
    assert back(entry) == entry


@given(entries())
def test_the_name_of_a_file_is_a_name_on_every_system(entry: MemoryEntry) -> None:
    name = name_of(entry)
    assert re.fullmatch(r"[^\W_A-Z]+(-[^\W_A-Z]+)*-[a-z2-7]{12}\.md", name)
    assert len(name.encode()) < 150
    assert key_in(name) == key_of(entry.id)


def test_a_name_begins_with_the_text() -> None:
    entry = MemoryEntry(id="x", content="# Prefers *dark* mode.\nEverywhere.")
    assert name_of(entry).startswith("prefers-dark-mode-everywhere-")
    assert name_of(replace(entry, metadata={"title": "Théme"})).startswith("théme-")
    assert name_of(replace(entry, content="!!!")).startswith("memory-")


@settings(max_examples=max(10, settings().max_examples // 10))
@given(many())
def test_a_folder_comes_back_the_same_with_its_vectors(found: list[MemoryEntry]) -> None:
    okf = formats()["okf"]
    with TemporaryDirectory() as folder:
        memories = Memories(lambda: iter(found), MODEL, len(found), vectors=True)
        for path, content in okf.write_folder(memories):
            target = Path(folder, "out", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if not found:
            return
        recognised = recognise(source_at(Path(folder, "out")))
        assert recognised
        assert recognised.format.name == "okf"
        conversion, entries_back, _ = read_sample(source_at(Path(folder, "out")))
    assert not conversion.rejected
    assert sorted(entries_back, key=lambda e: e.id) == sorted(found, key=lambda e: e.id)


def test_a_vector_is_left_out_if_the_text_was_edited(tmp_path: Path) -> None:
    entry = MemoryEntry(id="x", content="text", embedding=[1, 2, 3])  # type: ignore[arg-type]
    for path, content in formats()["okf"].write_folder(
        Memories(lambda: iter([entry]), MODEL, 1, vectors=True)
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content.replace(b"\ntext\n", b"\nnew\n"))
    _, [found], _ = read_sample(source_at(tmp_path))
    assert (found.content, found.embedding) == ("new", None)
    assert found.extra == {EDITED_SINCE: digest(entry)}


def test_many_memories_are_in_subfolders() -> None:
    entry = MemoryEntry(id="x", content="text")
    memories = Memories(lambda: iter([entry]), None, 20_000)
    [_, (path, _)] = formats()["okf"].write_folder(memories)
    assert path == f"{key_of('x')[:2]}/{name_of(entry)}"
