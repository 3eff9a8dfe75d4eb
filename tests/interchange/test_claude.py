"""claude.ai exports in their packagings."""

import io
import json
import zipfile
from pathlib import Path

import pytest

from tests.interchange.samples import SAMPLES, read_sample, source_at, source_of
from tribal_mcp.errors import BundleError
from tribal_mcp.interchange.base import Options
from tribal_mcp.interchange.formats import recognise

MEMORIES = {
    "conversations_memory": "Likes tea.",
    "project_memories": {"p-1": "Ships on Mondays.", "p-2": "Of a deleted project.", "p-3": ""},
    "account_uuid": "a-1",
}
PROJECTS = [{"uuid": "p-1", "name": "Billing", "docs": []}]


def zipped(files: dict[str, object]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in files.items():
            archive.writestr(name, value if isinstance(value, bytes) else json.dumps(value))
    return out.getvalue()


OLD = zipped(
    {
        "conversations.json": [],
        "memories.json": [MEMORIES],
        "projects.json": PROJECTS,
        "users.json": [{"uuid": "a-1", "full_name": "Ada", "email_address": "ada@example.org"}],
    }
)
PARTS: dict[str, bytes] = {
    "memories-000.zip": zipped({"memories/a-1.json": MEMORIES}),
    "projects-000.zip": zipped({"projects/p-1.json": PROJECTS[0]}),
    "manifest.json": b"{}",
}


def folder(path: Path) -> Path:
    for name, data in PARTS.items():
        (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize("packaging", ["old", "folder of archives", "archive of archives"])
def test_every_packaging_gives_the_same_memories(packaging: str, tmp_path: Path) -> None:
    source = {
        "old": lambda: source_of(OLD, "data.zip"),
        "folder of archives": lambda: source_at(folder(tmp_path)),
        "archive of archives": lambda: source_of(zipped(dict(PARTS)), "data.zip"),
    }[packaging]()
    conversion, entries, _ = read_sample(source)
    assert [(entry.content, entry.source_instance) for entry in entries] == [
        ("Likes tea.", "claude"),
        ("Ships on Mondays.", "claude:Billing"),
        ("Of a deleted project.", "claude:p-2"),
    ]
    assert conversion.rejected_count == 0


def test_one_archive_of_an_export_is_read_alone() -> None:
    _, entries, _ = read_sample(source_of(PARTS["memories-000.zip"], "memories-000.zip"))
    assert entries[0].content == "Likes tea."


def test_the_account_of_a_user_is_no_memory() -> None:
    _, entries, bundle = read_sample(source_of(OLD, "data.zip"))
    assert b"example.org" not in bundle
    assert len(entries) == 3


def test_ids_do_not_depend_on_the_text() -> None:
    changed = {**MEMORIES, "conversations_memory": "Likes milk."}
    first, second = (
        read_sample(source_of(json.dumps(value).encode()))[1] for value in (MEMORIES, changed)
    )
    assert [entry.id for entry in first] == [entry.id for entry in second]


def test_conversations_are_read_on_request_without_thinking_and_tools() -> None:
    source = source_at(SAMPLES / "claude-conversations.full.json")
    conversion, entries, _ = read_sample(source, Options(conversations=True))
    assert [entry.content for entry in entries] == [
        "**Overview** Ada asked about the deploy branch.",
        "Which branch do we deploy?",
        "Release.",
    ]
    assert entries[1].metadata["attachments"][0]["extracted_content"] == "release only"
    assert entries[2].created_at.isoformat() == "2026-08-05T20:55:40.123456+00:00"
    assert conversion.found == 3


def test_a_conversation_without_messages_is_accounted_for() -> None:
    chats = [{"uuid": "u", "name": "n", "summary": "", "chat_messages": []}]
    conversion, _, _ = read_sample(source_of(json.dumps(chats).encode()))
    assert conversion.left_out == {"a conversation without messages": 1}


def test_a_malformed_part_is_rejected_with_its_place() -> None:
    value = {**MEMORIES, "memory_files": [5, {"path": "/a.md", "content": "a", "updated_at": "?"}]}
    conversion, entries, _ = read_sample(source_of(json.dumps([value, 7]).encode()))
    assert len(entries) == 3
    assert [rejected.where for rejected in conversion.rejected] == [
        "file, item 1, memory file 1",
        "file, item 1, memory file 2",
        "file, item 2",
    ]


def test_a_damaged_archive_in_a_folder_is_no_export_and_refused_if_it_is_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "memories-000.zip").write_bytes(b"PK\x03\x04 damaged")
    assert recognise(source_at(tmp_path)) is None
    with pytest.raises(BundleError, match=r"memories-000\.zip"):
        read_sample(source_at(tmp_path), format_name="claude")
