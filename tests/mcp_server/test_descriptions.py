"""What `tools/list` says: descriptions, schemas and annotations; and next steps as tool calls."""

import json
from typing import Any

import pytest

from tests.support.examples import DATA
from tests.support.mcp_client import described
from tribal_mcp.mcp_server.next_steps import TOOLS, as_call

pytestmark = pytest.mark.anyio


async def test_tool_descriptions_match_the_recorded_file() -> None:
    assert await described() == json.loads((DATA / "tools.json").read_text()), (
        "The descriptions of the tools have changed. If that is intended, run "
        "`python -m tests.support.mcp_client > tests/data/tools.json` and review the difference."
    )


async def test_descriptions_are_short_enough_for_hosts_to_show() -> None:
    said = await described()
    texts = [said["instructions"], *(tool["description"] for tool in said["tools"])]
    assert max(len(text.encode()) for text in texts) <= 2048


async def test_every_argument_has_a_default_and_a_description() -> None:
    for tool in (await described())["tools"]:
        assert tool["inputSchema"]["additionalProperties"] is False
        assert "required" not in tool["inputSchema"]
        for name, schema in tool["inputSchema"]["properties"].items():
            assert schema["description"].endswith("."), name
            assert "default" in schema, name


async def test_next_steps_name_tools_that_exist() -> None:
    assert {f"tribal_{action}" for action in TOOLS} == {
        tool["name"] for tool in (await described())["tools"]
    }


@pytest.mark.parametrize(
    ("action", "arguments", "call"),
    [
        ("undo", {"point": "20261125-1"}, 'tribal_undo(point="20261125-1")'),
        (
            "import",
            {"bundle_json": ..., "dry_run": False},
            "tribal_import(bundle_json=…, dry_run=false)",
        ),
        ("remember", {"tags": ["é"]}, 'tribal_remember(tags=["é"])'),
        ("stats", {}, "tribal_stats()"),
        ("check", {"repair": True}, "`tribal-mcp check --repair` on the command line"),
        ("rescue", {"output_path": ...}, "`tribal-mcp rescue FILE` on the command line"),
        (
            "rescue",
            {"output_path": "a b.json"},
            "`tribal-mcp rescue 'a b.json'` on the command line",
        ),
    ],
)
def test_next_steps_are_calls_that_can_be_made(
    action: str, arguments: dict[str, Any], call: str
) -> None:
    assert as_call(action, arguments) == call


async def test_annotations_say_which_tools_change_data() -> None:
    hints = {t["name"]: t["annotations"] for t in (await described())["tools"]}
    assert hints == {
        "tribal_export": {
            "readOnlyHint": False,
            "destructiveHint": True,  # with overwrite it replaces a file
            "openWorldHint": False,
        },
        "tribal_import": {
            "readOnlyHint": False,
            "destructiveHint": True,
            "idempotentHint": True,
            "openWorldHint": False,
        },
        "tribal_reembed": {
            "readOnlyHint": False,
            "destructiveHint": True,
            "idempotentHint": True,
            "openWorldHint": False,
        },
        "tribal_undo": {
            "readOnlyHint": False,
            "destructiveHint": True,
            "idempotentHint": True,
            "openWorldHint": False,
        },
        "tribal_remember": {
            "readOnlyHint": False,
            "destructiveHint": False,
            "openWorldHint": False,
        },
        "tribal_recall": {"readOnlyHint": True, "openWorldHint": False},
        "tribal_forget": {
            "readOnlyHint": False,
            "destructiveHint": True,
            "idempotentHint": True,
            "openWorldHint": False,
        },
        "tribal_stats": {"readOnlyHint": True, "openWorldHint": False},
    }
