"""Letta's memory folders and agent files."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.interchange.samples import read_sample, source_of, source_with
from tribal_mcp.errors import BundleError
from tribal_mcp.interchange.formats import recognise

BLOCK = "---\ndescription: What I know\n---\n\nText.\n"


def agent(**values: object) -> dict[str, Any]:
    return {
        "agents": [{"name": "helper", "agent_type": "x", "messages": [{"role": "user"}]}],
        "blocks": [{"id": "block-0", "label": "human", "value": "Ada."}],
        **values,
    }


def read(file: dict[str, Any]) -> list[tuple[str, str]]:
    _, entries, _ = read_sample(source_of(json.dumps(file).encode()))
    return [(entry.source_instance, entry.content) for entry in entries]


@pytest.mark.parametrize("prefix", ["", "memory/", "agent-1/memory/"])
def test_blocks_in_the_folder_system_are_known(tmp_path: Path, prefix: str) -> None:
    found = recognise(source_with(tmp_path / "agent", {f"{prefix}system/human.md": BLOCK}))
    assert found is not None
    assert found.format.name == "letta"


def test_the_agent_in_the_path_keeps_two_agents_apart(tmp_path: Path) -> None:
    found = []
    for agent_id in ("agent-0a1b2c3d-1", "agent-0a1b2c3d-2"):
        folder = tmp_path / agent_id
        folder.mkdir()
        _, (entry,), _ = read_sample(source_with(folder / "memory", {"system/human.md": BLOCK}))
        found.append(entry)
    assert [entry.source_instance for entry in found] == [
        "letta:agent-0a1b2c3d-1",
        "letta:agent-0a1b2c3d-2",
    ]
    assert found[0].id != found[1].id


def test_an_agent_has_the_same_ids_alone_and_among_others(tmp_path: Path) -> None:
    ids = [f"agent-0a1b2c3d-{number}" for number in (1, 2)]
    files = {f"{agent_id}/memory/system/human.md": BLOCK for agent_id in ids}
    _, entries, _ = read_sample(source_with(tmp_path / "agents", files))
    _, (alone,), _ = read_sample(source_with(tmp_path / "agents" / ids[0] / "memory", {}))
    assert [entry.source_instance for entry in entries] == [f"letta:{agent}" for agent in ids]
    assert entries[0].id == alone.id


def test_a_memory_md_that_says_something_is_a_memory(tmp_path: Path) -> None:
    note = "---\nname: a\ndescription: b\n---\nText"
    files = {"MEMORY.md": "# Memory\n\nA fact.\n", "x/MEMORY.md": "- [A](a.md)\n", "x/a.md": note}
    conversion, entries, _ = read_sample(source_with(tmp_path / "memory", files))
    assert [entry.metadata["file"] for entry in entries] == ["MEMORY.md", "x/a.md"]
    assert conversion.left_out.total() == 1


def test_an_agent_file_is_read_as_an_object_and_as_json_in_a_text() -> None:
    text = json.dumps(agent())
    wanted = [("letta:helper", "Ada.")]
    for data in (text, json.dumps(text), json.dumps(text, indent=1), f"\ufeff{text}"):
        _, entries, _ = read_sample(source_of(data.encode()))
        assert [(entry.source_instance, entry.content) for entry in entries] == wanted


def test_blocks_belong_to_the_agent_that_has_them() -> None:
    agents = [
        {"name": name, "agent_type": "x", "block_ids": [f"block-{number}"]}
        for number, name in enumerate(("one", "two"))
    ]
    blocks = [{"id": f"block-{n}", "label": "human", "value": f"Text {n}"} for n in range(3)]
    assert read({"agents": agents, "blocks": blocks}) == [
        ("letta:one", "Text 0"),
        ("letta:two", "Text 1"),
        ("letta", "Text 2"),
    ]


def test_an_old_agent_file_is_one_agent() -> None:
    old = {
        "agent_type": "memgpt_agent",
        "name": "old",
        "core_memory": [{"label": "human", "value": "Ada."}],
        "messages": [{"role": "user", "text": "Hi"}],
    }
    assert read(old) == [("letta:old", "Ada.")]


def test_passages_with_equal_texts_and_other_times_are_two_memories() -> None:
    passages = [{"text": "x", "created_at": f"2026-0{n}-01T00:00:00Z"} for n in (1, 2)]
    assert read(agent(blocks=[], passages=passages)) == [("letta:helper", "x")] * 2


def test_renumbered_blocks_keep_their_ids() -> None:
    ids = set()
    for number in (0, 7):
        block = {"id": f"block-{number}", "label": "human", "value": "Ada."}
        _, (entry,), _ = read_sample(source_of(json.dumps(agent(blocks=[block])).encode()))
        ids.add((entry.id, json.dumps(entry.metadata)))
    assert len(ids) == 1


@pytest.mark.parametrize(
    "block",
    [
        None,
        5,
        ["x"],
        {"value": 5},
        {"value": ["x"]},
        {"value": "x", "created_at": "soon"},
        {"value": "x", "tags": {"a": 1}},
        {"value": "x", "label": ["x"], "tags": [["y"]]},
    ],
    ids=["null", "number", "list", "number text", "list text", "date", "tags", "tag"],
)
def test_blocks_of_a_wrong_kind_are_rejected_by_place(block: object) -> None:
    good = {"id": "block-0", "label": "human", "value": "Ada."}
    data = json.dumps(agent(blocks=[block, good])).encode()
    conversion, entries, _ = read_sample(source_of(data))
    assert [entry.content for entry in entries] == ["Ada."]
    assert [str(r).split(":")[0] for r in conversion.rejected] == ["blocks, item 1"]


@pytest.mark.parametrize("values", [{"agents": [{"agent_type": "x"}]}, {"blocks": {}}])
def test_an_agent_file_without_memories_says_so(values: dict[str, Any]) -> None:
    file = {"agents": [{"agent_type": "x"}], "blocks": [], **values}
    with pytest.raises(BundleError, match="no memories"):
        read_sample(source_of(json.dumps(file).encode()))


def test_a_half_written_agent_file_is_refused() -> None:
    data = json.dumps(json.dumps(agent())).encode()[:-30]
    with pytest.raises(BundleError, match="not valid JSON"):
        read_sample(source_of(data), format_name="letta")
