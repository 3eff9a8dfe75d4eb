"""What `tools/list` says: descriptions, schemas and annotations; and next steps as tool calls."""

import json
import re
from collections.abc import Iterator
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


async def test_every_argument_has_a_description_and_a_default_if_that_is_not_empty() -> None:
    required = {"tribal_remember": ["content"], "tribal_forget": ["ids"]}
    for tool in (await described())["tools"]:
        needed = tool["inputSchema"].get("required", [])
        assert tool["inputSchema"]["additionalProperties"] is False
        assert needed == required.get(tool["name"], [])
        for name, schema in tool["inputSchema"]["properties"].items():
            assert schema["description"].endswith("."), name
            assert schema.get("default", True), name  # what is not given is false or empty
            assert not (name in needed and "default" in schema), name


def tokens_of(value: object) -> float:
    """About how many tokens a value costs: no tokenizer is at hand, and one has 4 characters."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False)) / 4


async def test_the_tools_cost_a_model_few_tokens() -> None:
    tools = (await described())["tools"]
    read = [(tool["name"], tool["description"], tool["inputSchema"]) for tool in tools]
    assert tokens_of(read) <= 2_000
    assert tokens_of(tools) <= 5_200  # with what hosts keep to themselves


def schemas_in(schema: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - any JSON value
    """The schema and every schema inside it."""
    yield schema
    for part in schema.get("properties", {}).values():
        yield from schemas_in(part)
    for part in [*schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]:
        yield from schemas_in(part)


GEMINI = {
    "type", "format", "title", "description", "nullable", "enum", "maxItems", "minItems",
    "properties", "required", "minProperties", "maxProperties", "minLength", "maxLength", "pattern",
    "example", "anyOf", "propertyOrdering", "default", "items", "minimum", "maximum",
    "additionalProperties",
}  # fmt: skip
OPENAI_STRICT = {
    "type", "description", "title", "enum", "const", "properties", "required", "default",
    "additionalProperties", "items", "anyOf", "pattern", "format", "multipleOf", "maximum",
    "exclusiveMaximum", "minimum", "exclusiveMinimum", "minItems", "maxItems",
}  # fmt: skip


def refused_by_gemini(schema: dict[str, Any]) -> list[str]:
    """What Gemini's function declarations refuse."""
    found: list[str] = []
    for part in schemas_in(schema):
        found += [f"unknown keyword {name}" for name in part.keys() - GEMINI]
        if any(value == "" or not isinstance(value, str) for value in part.get("enum", ())):
            found.append("an empty enum value, or one that is no string")
        if part.get("type") == "object" and not part.get("properties") and part is not schema:
            found.append("an object without properties")
        if part.get("type") == "array" and "items" not in part:
            found.append("an array without items")
        if "type" not in part and "anyOf" not in part:
            found.append("no type")
        if not set(part.get("required", ())) <= part.get("properties", {}).keys():
            found.append("a required property that does not exist")
    return found


def refused_by_openai(schema: dict[str, Any]) -> list[str]:
    """What OpenAI's strict mode refuses once a client has made every property required."""
    found: list[str] = []
    for part in schemas_in(schema):
        found += [f"unknown keyword {name}" for name in part.keys() - OPENAI_STRICT]
        if part.get("type") == "object" and part.get("additionalProperties") is not False:
            found.append("an object with free-form properties")
        if "type" not in part and "anyOf" not in part:
            found.append("no type")
        if "enum" in part and (not part["enum"] or len(set(part["enum"])) < len(part["enum"])):
            found.append("an empty enum, or a value twice")
    return found


def refused_by_anthropic(tool: dict[str, Any]) -> list[str]:
    """What Anthropic's tools refuse."""
    found: list[str] = []
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool["name"]):
        found.append("the name")
    schema = tool["inputSchema"]
    if schema["type"] != "object":
        found.append("no object")
    found += [f"{name} at the top" for name in ("oneOf", "allOf", "anyOf") if name in schema]
    names = schema["properties"]
    found += [f"property {n}" for n in names if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", n)]
    return found


async def test_every_model_api_accepts_the_input_schemas() -> None:
    for tool in (await described())["tools"]:
        schema = tool["inputSchema"]
        assert refused_by_gemini(schema) == [], tool["name"]
        assert refused_by_openai(schema) == [], tool["name"]
        assert refused_by_anthropic(tool) == [], tool["name"]


def test_the_checkers_find_what_the_model_apis_refuse() -> None:
    empty = {"type": "object", "properties": {"a": {"type": "string", "enum": ["", "b"]}}}
    assert refused_by_gemini(empty) != []
    free = {"type": "object", "properties": {"a": {"type": "object"}}}
    assert refused_by_gemini(free) != []
    assert refused_by_openai(free) != []
    assert refused_by_anthropic({"name": "a b", "inputSchema": free}) == ["the name"]


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
        ("sync", {"folder": "/s", "withdraw": "1"}, 'tribal_sync(withdraw="1")'),
        (
            "sync",
            {"folder": "/s", "accept_deletions": True, "remove_machine": "a b"},
            "`tribal-mcp sync /s --accept-deletions --remove-machine 'a b'` on the command line",
        ),
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
            "openWorldHint": False,
        },
        "tribal_sync": {
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
