"""A memory as a Markdown file of an OKF bundle, and back, without loss.

The text stays as it is, for people to read and edit. What Markdown, git and editors may change, and
the fields that OKF has no place for, are in a block of the frontmatter, one JSON value a line. Its
`hash` tells later whether somebody has edited the file.
"""

import base64
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import orjson

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.frontmatter import FRONTMATTER, yaml_values
from tribal_mcp.interchange.own_block import OWN_BLOCK
from tribal_mcp.interchange.reading import parsed, texts
from tribal_mcp.portability.limits import NO_LIMITS
from tribal_mcp.portability.memory import EPOCH, MADE_BY, MemoryEntry
from tribal_mcp.portability.memory_json import digest, entry_fields, entry_from_dict
from tribal_mcp.stores.base import UNDATED

_TYPE = "memory"
_MORE = ("type", "title", "resource", "status", "sources", "verified", "stale_after")
"""Fields of OKF that stand in the metadata of a memory which came from there."""
_DEFAULTS: dict[str, Any] = {
    "source_instance": "unknown",
    "source_type": "unknown",
    "confidence": 1.0,
    "supersedes": None,
    "related_to": [],
    "metadata": {},
}
_FIELDS = {"content", "embedding", "tags", "context", "updated_at", *_DEFAULTS}
_INLINE_CHARS = 1000
_SLUG_CHARS, _SLUG_BYTES = 48, 120
_KEY_CHARS = 12

_NAME = re.compile(rf"-([a-z2-7]{{{_KEY_CHARS}}})\.md")
_WORDS = re.compile(r"[^\W_]+")
_BLOCK = re.compile(rf"^{OWN_BLOCK}:[ \t]*\n((?:[ \t]+[^\n]*\n)*)", re.MULTILINE)
_ID = re.compile(rf'^{OWN_BLOCK}:[ \t]*\n  id: (".*")$', re.MULTILINE)
_NOT_IN_YAML = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_BLANK_LINES = re.compile(r"\A(?:[ \t]*\n)+")
_UNRESOLVED = "it has conflict markers of git; resolve the conflict, then import again"


def file_of(entry: MemoryEntry) -> bytes:
    """The file of a memory, without its vector; the same memory, the same bytes."""
    fields = entry_fields(entry)
    body, exact = _split_content(entry.content)
    block: dict[str, Any] = {"id": entry.id, "hash": digest(entry)}
    undated = entry.extra.get(UNDATED) is True and fields["created_at"] == EPOCH.isoformat()
    if not undated:
        block["created_at"] = fields["created_at"]
    top: dict[str, Any] = {"type": _TYPE}
    metadata = dict(entry.metadata)
    for key in _MORE:
        if _is_short(key, metadata.get(key)):
            top[key] = metadata.pop(key)
    for key, name in (("context", "description"), ("tags", "tags")):
        if fields[key] not in (None, []):
            (top if _fits(fields[key]) else block)[name] = fields[key]
    if not undated or fields["updated_at"] != fields["created_at"]:
        top["generated"] = {"by": "tribal-mcp", "at": fields["updated_at"]}
    fields["metadata"] = metadata
    block |= {key: fields[key] for key, value in _DEFAULTS.items() if fields[key] != value}
    extra = dict(entry.extra)
    if type(extra.get(MADE_BY)) is str:  # belongs to the vector
        del extra[MADE_BY]
    if undated:
        del extra[UNDATED]
    if extra:
        block["extra"] = extra
    block |= exact
    lines = [f"{key}: {json_line(value)}" for key, value in top.items()]
    lines[0] = f"type: {_TYPE}" if top["type"] == _TYPE else lines[0]
    lines += [f"{OWN_BLOCK}:", *(f"  {key}: {json_line(value)}" for key, value in block.items())]
    return "\n".join(["---", *lines, "---", "", body, *([""] if body else [])]).encode()


def memory_of(text: str) -> tuple[MemoryEntry, str] | None:
    """The memory in a file, and the hash of the memory for which it was written.

    Returns:
        None if the file has no block of ours with an id and a hash.

    Raises:
        EntryError: it has one, and can't be read.
    """
    front = FRONTMATTER.match(text)
    if not front or f"{OWN_BLOCK}:" not in front[1]:
        return None
    if _is_unresolved(front[1]):
        raise EntryError(_UNRESOLVED)
    found = _BLOCK.search(front[1])
    block = _block_values(found[1]) if found else {}
    written_for = block.pop("hash", None)
    if not found or not isinstance(written_for, str):
        return None
    if not isinstance(block.get("id"), str):
        raise EntryError(f"its {OWN_BLOCK}.id is not text")
    above = front[1][: found.start()] + front[1][found.end() :]
    top = _values(above, "") or yaml_values(above)
    body = _BLANK_LINES.sub("", text[front.end() :]).rstrip()
    entry = entry_from_dict(_fields(top, block, body), NO_LIMITS)
    if digest(entry) != written_for and _is_unresolved(body):
        raise EntryError(_UNRESOLVED)
    return entry, written_for


def id_in(opening: str) -> str | None:
    """The id of the memory in a file, given its first characters; None if it isn't ours."""
    found = _ID.search(opening)
    try:
        value = json.loads(found[1]) if found else None
    except ValueError:
        return None
    return value if isinstance(value, str) and value else None


def key_of(memory_id: str) -> str:
    """What the name of a memory's file ends with, which never changes."""
    hashed = hashlib.sha256(memory_id.encode(errors="surrogatepass")).digest()
    return base64.b32encode(hashed[:8]).decode()[:_KEY_CHARS].lower()


def key_in(path: str) -> str:
    """The key in the name of a file; of any other file, its path."""
    found = _NAME.search(path)
    return found[1] if found and found.end() == len(path) else path


def is_key(text: str) -> bool:
    """Whether a text may be the key of a memory's file."""
    return bool(_NAME.fullmatch(f"-{text}.md"))


def name_of(entry: MemoryEntry) -> str:
    """The name of a memory's first file: the beginning of its text or title, and its key."""
    title = entry.metadata.get("title")
    text = title if isinstance(title, str) and title.strip() else entry.content
    words = _WORDS.findall(unicodedata.normalize("NFC", text[:200].casefold()))
    lengths = accumulate(len(word) + 1 for word in words)
    fitting = [w for w, length in zip(words, lengths, strict=True) if length <= _SLUG_CHARS + 1]
    slug = "-".join(fitting) or "".join(words[:1])[:_SLUG_CHARS] or _TYPE
    slug = slug.encode()[:_SLUG_BYTES].decode(errors="ignore")
    return f"{slug if slug.isprintable() else _TYPE}-{key_of(entry.id)}.md"


def _split_content(content: str) -> tuple[str, dict[str, str]]:
    """A text as it stands in the file, and what is needed to get the exact text back."""
    exact: dict[str, str] = {}
    text = content.replace("\r\n", "\n")
    if text != content and "\r" not in text and text.replace("\n", "\r\n") == content:
        exact["newlines"] = "crlf"
    elif "\r" in content or "\0" in content:
        exact["text"] = content
        text = text.replace("\r", "\n").replace("\0", "\ufffd")
    trimmed = _BLANK_LINES.sub("", text)
    body = trimmed.rstrip()
    if "text" not in exact:
        exact |= {"start": text[: len(text) - len(trimmed)], "end": trimmed[len(body) :]}
    return body, {key: value for key, value in exact.items() if value}


def _content(body: str, exact: Mapping[Any, str]) -> str:
    text = exact.get("text")
    if text is not None and _split_content(text)[0] == body:
        return text
    content = exact.get("start", "") + body + exact.get("end", "")
    return content.replace("\n", "\r\n") if exact.get("newlines") == "crlf" else content


def _fields(top: dict[str, Any], block: dict[str, Any], body: str) -> dict[str, Any]:
    """The JSON form of a memory."""
    exact = {key: block.pop(key) for key in ("newlines", "text", "start", "end") if key in block}
    if not all(isinstance(value, str) for value in exact.values()):
        raise EntryError(f"its {OWN_BLOCK} has a value that is no text")
    extra = block.pop("extra", {})
    metadata = block.pop("metadata", {})
    if not isinstance(extra, dict) or not isinstance(metadata, dict):
        raise EntryError(f"its {OWN_BLOCK}.extra or {OWN_BLOCK}.metadata is not a mapping")
    generated = top.pop("generated", None)
    for key, name in (("description", "context"), ("tags", "tags")):
        value = top.pop(key, None)
        block[name] = block.pop(key, None) if value is None else value
    if not isinstance(block["tags"], list) or not all(isinstance(t, str) for t in block["tags"]):
        block["tags"] = texts(block["tags"])
    if top.get("type") == _TYPE:
        del top["type"]
    if "created_at" not in block:
        block["created_at"] = EPOCH.isoformat()
        extra = {UNDATED: True, **extra}
    if isinstance(generated, dict) and generated.get("at") is not None:
        block["updated_at"] = generated["at"]
    known = sorted(extra.keys() & (_FIELDS | {"id", "created_at"}))
    if known:
        raise EntryError(f"its {OWN_BLOCK}.extra has {known[0]!r}, which is a field of its own")
    return {**block, **extra, "content": _content(body, exact), "metadata": {**top, **metadata}}


def _block_values(lines: str) -> dict[str, Any]:
    """The values in the block: as it was written, or as YAML if a program has rewritten it."""
    if values := _values(lines, "  "):
        return values
    found = yaml_values(f"{OWN_BLOCK}:\n{lines}")[OWN_BLOCK]
    return found if isinstance(found, dict) else {}


def _values(lines: str, indent: str) -> dict[str, Any] | None:
    """The values of lines as this program writes them, which takes a tenth of YAML's time."""
    values: dict[str, Any] = {}
    for line in lines.rstrip("\n").split("\n"):
        name, colon, value = line.partition(": ")
        key = name.removeprefix(indent)
        if not colon or not name.startswith(indent) or not key.isidentifier() or key in values:
            return None
        try:
            if value.startswith(('"', '["')):
                values[key] = orjson.loads(value)
            else:
                values[key] = _TYPE if value == _TYPE else parsed(value)
        except ValueError:
            return None
    return values


def _is_unresolved(text: str) -> bool:
    """Whether git left both sides of a conflict in the text."""
    lines = text.split("\n")
    starts = ("<<<<<<< ", "=======", ">>>>>>> ")
    return "<<<<<<< " in text and all(any(li.startswith(s) for li in lines) for s in starts)


def _is_short(key: str, value: object) -> bool:
    """Whether a value of the metadata can stand above the block, for other programs to read."""
    if value is None or (key == "type" and (not isinstance(value, str) or value in ("", _TYPE))):
        return False
    return _fits(value)


def _fits(value: object) -> bool:
    return len(json_line(value)) <= _INLINE_CHARS


def json_line(value: object) -> str:
    """JSON in one line that YAML reads the same."""
    text = json.dumps(value, ensure_ascii=False)
    if text.isascii() and "\x7f" not in text:
        return text
    return _NOT_IN_YAML.sub(lambda char: f"\\u{ord(char[0]):04x}", text)
