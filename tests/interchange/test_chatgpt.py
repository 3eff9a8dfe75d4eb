"""ChatGPT exports: what is still saved, and what is not."""

import io
import json
import zipfile
from typing import Any

from tests.interchange.samples import read_sample, source_of
from tribal_mcp.interchange.base import REPEATED, Options
from tribal_mcp.interchange.convert import Conversion
from tribal_mcp.portability.memory import EPOCH, MemoryEntry
from tribal_mcp.stores.base import UNDATED

Message = dict[str, Any]


def said(text: str, time: float | None = 100.0, role: str = "user", **more: object) -> Message:
    content = {"content_type": "text", "parts": [text]}
    return {"author": {"role": role}, "create_time": time, "content": content, **more}


def bio(text: str, time: float | None = 100.0) -> Message:
    return said(text, time, "assistant", recipient="bio")


def context(text: str, time: float | None = None) -> Message:
    content = {"content_type": "model_editable_context", "model_set_context": text}
    return said("", time, "system") | {"content": content}


def chat(*messages: Message, **more: object) -> dict[str, Any]:
    """A conversation without branches."""
    mapping: dict[str, Any] = {"root": {"message": None, "parent": None, "children": ["m0"]}}
    for number, message in enumerate(messages):
        parent = f"m{number - 1}" if number else "root"
        children = [f"m{number + 1}"] if number + 1 < len(messages) else []
        mapping[f"m{number}"] = {"message": message, "parent": parent, "children": children}
    last = f"m{len(messages) - 1}" if messages else "root"
    return {"title": "t", "mapping": mapping, "current_node": last, "conversation_id": "c"} | more


def read(*chats: object, conversations: bool = False) -> tuple[Conversion, list[MemoryEntry]]:
    source = source_of(json.dumps(chats).encode())
    return read_sample(source, Options(conversations=conversations))[:2]


def texts(*chats: object) -> list[str]:
    return [entry.content for entry in read(*chats)[1]]


def test_the_newest_list_wins_over_older_lists_and_older_saved_memories() -> None:
    assert texts(
        chat(context("1. [2026-02-01]. New."), said("", 300)),
        chat(context("1. [2026-01-01]. Old."), said("", 200), bio("Gone.", 210)),
        chat(bio("Newer than the list.", 310)),
    ) == ["New.", "Newer than the list."]


def test_a_list_without_a_time_has_that_of_the_next_message() -> None:
    newer = chat(context("1. [2026-02-01]. New."), said("", 0), said("", 300))
    older = chat(context("1. [2026-01-01]. Old."), said("", 200))
    assert texts(newer, older) == texts(older, newer) == ["New."]


def test_a_listed_memory_has_the_time_of_its_message_and_counts_once() -> None:
    conversion, entries = read(
        chat(bio("Likes tea.", 100.5)), chat(context("1. [2026-02-01]. Likes tea.", 200))
    )
    assert [entry.created_at.timestamp() for entry in entries] == [100.5]
    assert conversion.left_out == {REPEATED: 1}


def test_a_request_to_forget_is_no_memory_and_takes_out_what_it_names() -> None:
    assert texts(
        chat(bio("Likes tea.", 100), bio("Likes milk.", 101), bio("Forget that likes tea", 102))
    ) == ["Likes milk."]
    assert texts(chat(bio("Forget that likes tea", 99), bio("Likes tea.", 100))) == ["Likes tea."]


def test_a_memory_saved_again_after_a_request_to_forget_it_is_saved_in_any_order() -> None:
    parts = [chat(bio("Likes tea.", t)) for t in (100, 300)]
    forget = chat(bio("Forget that likes tea", 200))
    for chats in ([*parts, forget], [*parts[::-1], forget]):
        conversion, (entry,) = read(*chats)
        assert entry.created_at.timestamp() == 300
        assert (conversion.found, conversion.left_out[REPEATED]) == (3, 1)


def test_forget_me_nots_are_no_request_to_forget() -> None:
    assert texts(chat(bio("Forget-me-nots are her flowers."))) == [
        "Forget-me-nots are her flowers."
    ]


def test_messages_on_branches_that_were_edited_away_are_left_out() -> None:
    conversation = chat(said("a"), said("b"), bio("Kept."))
    conversation["mapping"]["x"] = {"message": bio("Edited away.", 900), "parent": "m0"}
    conversation["mapping"]["y"] = {"message": context("1. Away.", 901), "parent": "m0"}
    assert texts(conversation) == ["Kept."]


def test_a_current_node_that_does_not_exist_is_replaced_by_the_newest_leaf() -> None:
    conversation = chat(said("a"), bio("Kept.", 200), current_node="gone")
    conversation["mapping"]["x"] = {"message": bio("Older.", 150), "parent": "m0", "children": []}
    assert texts(conversation) == ["Kept."]


def test_a_cycle_of_parents_ends() -> None:
    conversation = chat(bio("Kept."))
    conversation["mapping"]["root"]["parent"] = "m0"
    assert texts(conversation) == ["Kept."]


def test_times_that_are_null_or_zero_are_unknown() -> None:
    _, entries = read(chat(bio("a", None), bio("b", 0)), chat(context("[unknown] - c", None)))
    assert [e.created_at for e in entries] == [EPOCH] * len(entries)
    assert all(entry.extra[UNDATED] for entry in entries)


def test_a_list_without_dates_is_read_by_its_numbers() -> None:
    assert texts(chat(context("1. Likes tea.\n2. Has a cat\nand a dog.", 5))) == [
        "Likes tea.",
        "Has a cat\nand a dog.",
    ]


def test_a_date_that_does_not_exist_rejects_only_its_memory() -> None:
    conversion, entries = read(chat(context("1. [2026-02-30]. a\n2. [2026-02-01]. b", 5)))
    assert [entry.content for entry in entries] == ["b"]
    assert conversion.rejected_count == 1


def test_only_the_newest_custom_instructions_are_read() -> None:
    def instructions(text: str, time: float) -> Message:
        content = {"content_type": "user_editable_context", "user_profile": f"About:\n```{text}```"}
        return said("", time) | {"content": content}

    conversion, entries = read(chat(instructions("New.", 20)), chat(instructions("Old.", 10)))
    assert [(e.content, e.context) for e in entries] == [
        ("New.", "Custom instructions: about the user")
    ]
    assert conversion.left_out.total() == 2


def test_conversations_are_read_on_request_without_tools_and_images() -> None:
    image = {"content_type": "multimodal_text", "parts": [{"asset_pointer": "x"}]}
    conversion, entries = read(
        chat(
            said("Hello.", 5),
            said("search", 6, "assistant", recipient="web"),
            said("result", 7, "tool"),
            said("", 8) | {"content": image},
            said("Hi.", 9, "assistant", metadata={"model_slug": "gpt-5"}),
        ),
        conversations=True,
    )
    assert [(e.content, e.metadata["role"]) for e in entries] == [
        ("Hello.", "user"),
        ("Hi.", "assistant"),
    ]
    assert entries[1].metadata["model_slug"] == "gpt-5"
    assert conversion.left_out.total() == 3
    assert conversion.found == 5


def test_a_malformed_conversation_or_message_is_rejected_with_its_place() -> None:
    broken = chat(said("a"), bio("Kept."))
    broken["mapping"]["m0"]["message"]["content"] = 5
    conversion, entries = read(broken, 7, {"mapping": []})
    assert [entry.content for entry in entries] == ["Kept."]
    assert [rejected.where for rejected in conversion.rejected] == [
        "file, conversation 1, message m0",
        "file, conversation 2",
        "file, conversation 3",
    ]


def test_an_archive_zipped_again_with_its_folder_and_empty_shards_is_read() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("My export/conversations-000.json", "[]")
        archive.writestr("My export/conversations-001.json", json.dumps([chat(bio("Kept."))]))
        archive.writestr("My export/chat.html", "<html></html>")
        archive.writestr("__MACOSX/My export/._conversations-001.json", b"\0\5")
    _, entries, _ = read_sample(source_of(out.getvalue(), "export.zip"))
    assert [entry.content for entry in entries] == ["Kept."]
