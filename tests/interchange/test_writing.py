"""What every format that is written does: it announces what is lost, and the rest comes back."""

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.interchange.samples import SAMPLES, read_sample, source_at, source_of
from tribal_mcp.interchange.base import Format, Memories
from tribal_mcp.interchange.formats import BUILT_IN, formats
from tribal_mcp.interchange.own_block import (
    LOST,
    NO_TEXT,
    OTHERS,
    OWN_BLOCK,
    TEXT,
    TIME,
    VECTOR,
    own_block,
    restored,
)
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import EPOCH, MemoryEntry
from tribal_mcp.stores.base import IMPORTED_FROM, UNDATED

WRITABLE = sorted((kind() for kind in BUILT_IN if kind.writes), key=lambda made: made.name)
READ_BACK = [made for made in WRITABLE if not made.fills_part]
MODEL = EmbeddingMetadata("test-model", 4)

each_format = pytest.mark.parametrize("made", WRITABLE, ids=lambda made: made.name)
each_read_back = pytest.mark.parametrize("made", READ_BACK, ids=lambda made: made.name)


def written(made: Format, entries: Sequence[MemoryEntry]) -> dict[str, bytes]:
    """The files that an export writes, by their paths."""
    memories = Memories(lambda: iter(entries), MODEL)
    if made.writes == "file":
        return {f"file{made.suffixes[0]}": b"".join(made.write(memories))}
    files = list(made.write_folder(memories))
    assert len({path.casefold() for path, _ in files}) == len(files)
    return dict(files)


def read_back(made: Format, files: dict[str, bytes]) -> list[MemoryEntry]:
    """What an import of these files gives, whose format is recognised."""
    if made.writes == "file":
        return _read(made, source_of(next(iter(files.values()))))
    with TemporaryDirectory() as folder:
        for path, content in files.items():
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_bytes(content)
        return _read(made, source_at(Path(folder)))


def _read(made: Format, source: Source) -> list[MemoryEntry]:
    conversion, entries, _ = read_sample(source)
    assert conversion.format.name == made.name
    assert not conversion.rejected
    return entries


def _in_one_line(text: str) -> str:
    return " ".join(text.replace("\0", " ").replace("\ufffd", " ").split())


def without_lost(entry: MemoryEntry, lost: set[str]) -> dict[str, Any]:
    """The fields of a memory that a format holds."""
    date: object = (
        None if UNDATED in entry.extra or LOST["created_at"] in lost else entry.created_at
    )
    if TIME in lost and date:
        date = entry.created_at.date()
    fields = {
        "id": entry.id,
        "content": _in_one_line(entry.content) if TEXT in lost else entry.content,
        "created_at": date,
        "updated_at": entry.updated_at,
        "tags": entry.tags,
        "context": entry.context,
        "confidence": entry.confidence,
        "supersedes": entry.supersedes,
        "related_to": entry.related_to,
        "source_instance": entry.source_instance,
        "source_type": entry.source_type,
        IMPORTED_FROM: entry.extra.get(IMPORTED_FROM),
        "metadata": entry.metadata,
        "embedding": None if entry.embedding is None else entry.embedding.tolist(),
        "extra": {k: v for k, v in entry.extra.items() if k not in {UNDATED, IMPORTED_FROM}},
    }
    phrases = {**LOST, "embedding": VECTOR, "extra": OTHERS, "content": "", "created_at": ""}
    return {key: value for key, value in fields.items() if phrases[key] not in lost}


def compare(made: Format, entries: Sequence[MemoryEntry]) -> None:
    """What is read back is equal, except for what is announced as lost."""
    back = read_back(made, written(made, entries))
    lost = {entry.id: set(made.lost(entry)) for entry in entries}
    kept = [entry for entry in entries if NO_TEXT not in lost[entry.id]]
    if any(LOST["id"] in lost[entry.id] for entry in kept):  # equal texts become one memory
        held = {_in_one_line(e.content): e for e in reversed(kept)}
        read = {_in_one_line(e.content): e for e in back}
        assert held.keys() == read.keys()
    else:
        held, read = {e.id: e for e in kept}, {e.id: e for e in back}
        ordered = sorted if made.writes == "folder" else list  # files have no order
        assert ordered(held) == ordered(read)
    for key, entry in held.items():
        phrases = lost[entry.id]
        assert phrases <= set(made.loses)
        assert without_lost(read[key], phrases) == without_lost(entry, phrases)


_NASTY = (
    "line one\nline two\n\n\nline five",
    "---\ntitle: not: yaml\n---\nbody",
    "a ]]> b <![CDATA[ </x>",
    "[2026-01-01] - looks like an entry\n[unknown] - and another",
    "```\ncode\n```\n# heading\n- [link](x.md)",
    "nul \0 inside, bell \a, escape \x1b[31m",
    "\u202eright to left\u202c \u200b zero width \ufeff",
    "carriage\rreturn\r\nand newline",
    " surrounded by spaces \n",
    "\u2028 and \u2029 and \x85",
    '=HYPERLINK("http://x"), +1, @x',
    "quotes \" ' and , ; | \t tabs",
    "<!-- tribal-mcp:end -->\n<!-- tribal-mcp:begin -->",
    "[[link]] and #tag and [[other|alias]]",
    "x" * 1_000_000,
    "- item\n- [category] observation #tag (context)\n- relates_to [[X]]",
    "emoji 👩‍👩‍👧 é e\u0301",
)


def nasty() -> list[MemoryEntry]:
    """Memories whose texts and ids could be mistaken for syntax."""
    ids = [
        "a/b",
        "../x",
        "A",
        "a",
        "",
        "index",
        "CON",
        "\u0131",
        "I",
        "MEMORY",
        ".hidden",
        "a b",
        "ß",
    ]
    ids += ["ss", "x" * 300, "é", "e\u0301"]
    day = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    return [
        MemoryEntry(
            id=memory_id or "empty",
            content=text,
            created_at=day + timedelta(days=number),
            tags=["a, b", " c ", ""][: number % 4],
            context=[None, "", "one\ntwo", "---"][number % 4],
            related_to=[ids[number - 1] or "empty"] if number else [],
            supersedes="a/b" if number == 3 else None,
            confidence=number / 20,
            metadata={"text": text[:50], "n": [number, None, {"k": "\0"}], "tags": 1},
            extra={"unknown_field": number} if number % 2 else {UNDATED: True},
        )
        for number, (memory_id, text) in enumerate(zip(ids, _NASTY, strict=True))
    ]


@each_read_back
def test_texts_that_look_like_syntax_come_back(made: Format) -> None:
    compare(made, nasty())


@each_format
def test_the_same_memories_give_the_same_bytes(made: Format) -> None:
    assert written(made, nasty()) == written(made, nasty())


@each_format
def test_an_empty_store_gives_a_valid_export(made: Format) -> None:
    files = written(made, [])
    assert list(files.values()) == list(written(made, []).values())


@each_read_back
def test_memories_without_text_are_announced_or_come_back(made: Format) -> None:
    blank = [MemoryEntry(id="1", content=""), MemoryEntry(id="2", content=" \n")]
    compare(made, [*blank, MemoryEntry(id="3", content="text")])


def _texts(size: int = 20) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=size)


_dates = st.datetimes(
    datetime(1, 1, 3),  # noqa: DTZ001 - Hypothesis adds the time zone
    datetime(9999, 12, 29),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7))]),
)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts(8), inner, max_size=3),
    max_leaves=5,
)
_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@st.composite
def _entries(draw: st.DrawFn) -> list[MemoryEntry]:
    ids = draw(st.lists(_ids, min_size=1, max_size=4, unique=True))
    vectors = st.none() | st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4)
    made = []
    for memory_id in ids:
        created = draw(st.none() | _dates)
        made.append(
            MemoryEntry(
                id=memory_id,
                content=draw(_texts(60)),
                created_at=created or EPOCH,
                updated_at=draw(_dates) if created else EPOCH,
                tags=draw(st.lists(_texts(), max_size=3)),
                context=draw(st.none() | _texts()),
                confidence=draw(st.floats(0, 1)),
                supersedes=draw(st.none() | st.sampled_from(ids)),
                related_to=draw(st.lists(st.sampled_from(ids) | _ids, max_size=3)),
                source_instance=draw(st.sampled_from(["unknown", "mem0", "x:y"])),
                source_type=draw(st.sampled_from(list(MemorySource))),
                metadata=draw(st.dictionaries(_texts(8), _json, max_size=3)),
                embedding=draw(vectors),  # type: ignore[arg-type]  # a list is converted
                extra={} if created else {UNDATED: True},
            )
        )
    return made


@each_read_back
@given(entries=_entries())
def test_all_but_what_is_announced_comes_back(made: Format, entries: list[MemoryEntry]) -> None:
    if any(NO_TEXT not in set(made.lost(entry)) for entry in entries):
        compare(made, entries)


THE_SAME = {
    "claude-import-memory.txt": "dated-list",
    "mcp-reference-memory.jsonl": "reference-server",
    "mem0-get_all.json": "mem0",
}


@pytest.mark.parametrize("sample", THE_SAME)
def test_what_was_imported_is_exported_byte_by_byte(sample: str) -> None:
    made = formats()[THE_SAME[sample]]
    _, entries, _ = read_sample(source_at(SAMPLES / sample))
    (content,) = written(made, entries).values()
    assert content == (SAMPLES / sample).read_bytes()
    assert not any(set(made.lost(entry)) for entry in entries)


@each_format
def test_what_may_be_lost_is_documented(made: Format) -> None:
    assert made.written
    memories = Memories(lambda: iter(nasty()))
    assert {what for _, what in made.losses(memories)} <= set(made.loses)


def _edited_in_mem0(change: Callable[[dict[str, Any]], object]) -> MemoryEntry:
    entry = MemoryEntry(
        id="1",
        content="Deploys on Friday.",
        tags=["deploy", " odd "],
        context="From the retro.",
        related_to=["2"],
        metadata={"team": "web"},
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    made = formats()["mem0"]
    (content,) = written(made, [entry]).values()
    whole = json.loads(content)
    change(whole["results"][0])
    (back,) = _read(made, source_of(json.dumps(whole).encode()))
    return back


def test_what_was_edited_there_wins_and_the_rest_is_ours() -> None:
    back = _edited_in_mem0(lambda record: record.update(memory="Deploys on Monday."))
    assert back.content == "Deploys on Monday."
    assert (back.id, back.context, back.related_to) == ("1", "From the retro.", ["2"])
    assert (back.tags, back.metadata) == (["deploy", " odd "], {"team": "web"})


def test_tags_and_metadata_that_were_changed_there_win() -> None:
    def change(record: dict[str, Any]) -> None:
        record["categories"] = ["release"]
        record["metadata"]["reviewed"] = True
        record["updated_at"] = "2026-02-03T00:00:00+00:00"

    back = _edited_in_mem0(change)
    assert back.tags == ["release"]
    assert back.metadata == {"team": "web", "reviewed": True}
    assert back.updated_at == datetime(2026, 2, 3, tzinfo=UTC)
    assert back.context == "From the retro."


@pytest.mark.parametrize(
    "block",
    [1, {"fields": 1}, {"fields": {"tags": "x"}}, {"fields": {"context": [1]}}, {"read_as": []}],
    ids=["number", "fields", "tags", "context", "read_as"],
)
def test_a_malformed_block_rejects_the_record(block: object) -> None:
    record = {"id": "1", "memory": "x", "hash": "y", "metadata": {OWN_BLOCK: block}}
    conversion, entries, _ = read_sample(source_of(json.dumps({"results": [record]}).encode()))
    assert (len(entries), conversion.rejected_count) == (0, 1)


def test_a_block_that_takes_away_a_needed_field_leaves_it_as_it_is() -> None:
    digest = hashlib.sha256(b'"x"').hexdigest()[:8]
    block = {"read_as": {"content": digest, "id": "0", "created_at": "0"}}
    record = {"id": "1", "memory": "x", "hash": "y", "metadata": {OWN_BLOCK: block}}
    (entry,) = _read(formats()["mem0"], source_of(json.dumps({"results": [record]}).encode()))
    assert (entry.id, entry.content) == ("1", "x")


def test_claude_codes_index_has_the_newest_of_many_and_fits_into_200_lines() -> None:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    entries = [
        MemoryEntry(id=str(n), content=f"Memory {n}.", created_at=day + timedelta(days=n))
        for n in range(300)
    ]
    files = written(formats()["claude-code"], entries)
    lines = files["MEMORY.md"].decode().splitlines()
    assert len(files) == 301
    assert len(lines) < 200
    assert lines[0].startswith("- [Memory 299.](memory-299-")
    assert lines[-1] == "# 110 older ones are in this folder"


def test_a_letta_file_has_only_a_name_and_a_description_and_the_index_no_frontmatter() -> None:
    files = {path: text.decode() for path, text in written(formats()["letta"], nasty()).items()}
    assert not files.pop("MEMORY.md").startswith("---")
    for text in files.values():
        front = text.split("---\n")[1]
        assert [line.split(":")[0] for line in front.splitlines()] == ["name", "description"]


@pytest.mark.parametrize(
    ("sample", "name"),
    [("claude-code-memory", "claude-code"), ("basic-memory-notes", "basic-memory")],
    ids=["claude-code", "basic-memory"],
)
def test_notes_that_came_from_there_keep_their_files_and_need_no_block(
    sample: str, name: str
) -> None:
    _, entries, _ = read_sample(source_at(SAMPLES / sample))
    files = written(formats()[name], entries)
    assert not any(OWN_BLOCK.encode() in text for text in files.values())
    paths = {
        path.relative_to(SAMPLES / sample).as_posix() for path in (SAMPLES / sample).rglob("*.md")
    }
    assert set(files) == paths


def test_a_note_that_was_edited_in_its_folder_keeps_what_is_ours() -> None:
    entry = MemoryEntry(
        id="1", content="Old text.", tags=["a", "b"], confidence=0.5, related_to=["2"]
    )
    made = formats()["claude-code"]
    files = written(made, [entry])
    path = next(path for path in files if path != "MEMORY.md")
    files[path] = files[path].replace(b"Old text.", b"New text, see [[x]].")
    (back,) = read_back(made, files)
    assert back.content == "New text, see [[x]]."
    assert (back.id, back.tags, back.confidence, back.related_to) == ("1", ["a", "b"], 0.5, ["2"])


def test_spaces_around_a_text_are_kept_without_a_copy_of_the_text() -> None:
    made = formats()["claude-code"]
    entry = MemoryEntry(id="1", content="\n  The text.\n\n")
    files = written(made, [entry])
    path = next(path for path in files if path != "MEMORY.md")
    assert files[path].count(b"The text.") == 2  # in the description, and as the text
    assert read_back(made, files)[0].content == entry.content


def test_a_field_that_only_the_record_has_is_not_ours_when_it_comes_back() -> None:
    ours, plain = MemoryEntry(id="1", content="x"), MemoryEntry(id="1", content="x")
    plain.metadata = {"version": 1, "empty": {}}
    plain.created_at = plain.updated_at = ours.created_at = ours.updated_at
    assert restored(plain, own_block(ours, plain, "mem0"), "mem0").metadata == {}


@pytest.mark.parametrize("field", ["id", "content", "context", "source_instance"])
def test_nul_in_a_table_comes_back(field: str) -> None:
    fields = {"id": "1", "content": "x", field: "a\0b"}
    compare(formats()["csv"], [MemoryEntry(**fields)])  # type: ignore[arg-type]


def test_two_memories_of_one_file_get_two_files() -> None:
    entries = [
        MemoryEntry(
            id=name, content=name, metadata={"file": name}, extra={IMPORTED_FROM: "claude-code"}
        )
        for name in ("a.md", "A.md", "../b.md", "/c.md", ".d.md", "MEMORY.md", "index.md")
    ]
    files = written(formats()["claude-code"], entries)
    assert len(files) == len(entries) + 1
    assert "a.md" in files
    assert not any(path.startswith((".", "/")) for path in files)


def test_a_memory_that_comes_home_has_no_origin_if_it_had_none() -> None:
    made = formats()["mem0"]
    (back,) = read_back(made, written(made, [MemoryEntry(id="1", content="x")]))
    assert IMPORTED_FROM not in back.extra


def test_relations_of_pam_lead_to_memories_in_the_file() -> None:
    entries = [
        MemoryEntry(id="1", content="x", related_to=["2", "elsewhere"]),
        MemoryEntry(id="2", content="y", supersedes="elsewhere"),
    ]
    (content,) = written(formats()["pam"], entries).values()
    relations = json.loads(content)["relations"]
    assert [(r["from"], r["to"], r["type"]) for r in relations] == [("1", "2", "related_to")]
