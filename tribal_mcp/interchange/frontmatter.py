"""The YAML before a Markdown text, read as YAML 1.2: "no" is a text, and dates stay texts.

The parser is libyaml where PyYAML has it, which takes a tenth of the time.
"""

import re
from collections.abc import Hashable
from itertools import accumulate
from typing import Any

import yaml  # type: ignore[import-untyped]  # has no stubs

from tribal_mcp.errors import EntryError

FRONTMATTER = re.compile(r"---[ \t]*\n(.*?)(?<=\n)---[ \t]*(?:\n|\Z)", re.DOTALL)
"""The values before a Markdown text: group 1 is YAML."""
_KEY = re.compile(r"^[^\s#-][^\n]*:|^[\[{*&]", re.MULTILINE)
_LIST_ITEM = re.compile(r"\s*-\s+(\S.*?)\s*")
_YAML_CHARS = 64 << 10
_NESTING = 50
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}
_TAG = "tag:yaml.org,2002:"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Constructs plain values; a key must not be given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:  # noqa: ANN401
        found: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        if len(found) != len(node.value):
            raise EntryError("its frontmatter has a key twice")
        return found


def _int(loader: Any, node: Any) -> int:  # noqa: ANN401 - PyYAML has no types
    return int(loader.construct_scalar(node))


_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?[0-9]+$", list("-+0123456789")),
    (
        "float",
        r"(?:[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf)|\.(?:nan|NaN))$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)
_Loader.add_constructor(_TAG + "int", _int)
_Loader.add_constructor(_TAG + "timestamp", yaml.SafeLoader.construct_yaml_str)


def yaml_values(text: str) -> dict[str, Any]:
    """The mapping that a YAML text holds, with dates as text.

    Raises:
        EntryError: it is not a mapping of plain values, uses aliases, or is nested too deeply.
    """
    if len(text) > _YAML_CHARS:
        raise EntryError("its frontmatter is too long")
    try:
        _check_events(text)
        found = yaml.load(text, _Loader)  # noqa: S506 - made from the safe loader
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, EntryError):
            raise
        raise EntryError("its frontmatter is not valid YAML") from None
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise EntryError("its frontmatter is not a mapping")
    return found


def _check_events(text: str) -> None:
    """Refuse aliases and deep nesting, before anything is built."""
    too_deep = EntryError("its frontmatter is nested too deeply")
    if max(accumulate(_STEPS.get(char, 0) for char in text), default=0) > _NESTING:
        raise too_deep  # libyaml takes quadratic time
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise EntryError("its YAML uses aliases")
        if depth > _NESTING:
            raise too_deep


def split_frontmatter(text: str) -> tuple[dict[str, Any], str]:
    """The values before a Markdown text, and the text after them.

    Values that are not valid YAML, such as `name: a: b`, are read line by line as `key: text`.

    Raises:
        EntryError: they can't be read that way either.
    """
    match = FRONTMATTER.match(text)
    if not match or (match[1].strip() and not _KEY.search(match[1])):  # text between two rules
        return {}, text
    body = text[match.end() :]
    try:
        return yaml_values(match[1]), body
    except EntryError:
        values = _plain_values(match[1])
        if values is None:
            raise
        return values, body


def _plain_values(text: str) -> dict[str, Any] | None:
    """`key: text` lines, with indented ones or a list of texts below an empty `key:`."""
    values: dict[str, Any] = {}
    inner: dict[str, Any] | None = None
    above = last = ""
    for line in filter(str.strip, text.split("\n")):
        listed = values.get(above)
        if (item := _LIST_ITEM.fullmatch(line)) and (listed == {} or isinstance(listed, list)):
            values[above], inner = [*listed, item[1].strip("\"'")], None
            continue
        key, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"\s*[\w.-]+", key):
            if not line[0].isspace() or not isinstance(values.get(last), str):
                return None
            values[last] += f" {line.strip()}"  # a text that goes on
            continue
        value = value.strip().strip("\"'")
        if key[0].isspace():
            if inner is None:
                return None
            inner[key.strip()] = value
        elif value:
            values[key], inner, above, last = value, None, "", key
        else:
            values[key] = inner = {}
            above, last = key, ""
    return values
