"""The OpenAPI document as an HTML page without scripts or external resources."""

import re
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

_STYLE = """\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
code,pre{font:14px/1.5 ui-monospace,monospace;background:#f4f4f2;border-radius:4px}
code{padding:.1em .3em}pre{padding:1rem;overflow:auto}
h2{margin:3.5rem 0 1rem}h2 code{font-size:1.2rem}
table{border-collapse:collapse;width:100%;table-layout:fixed;margin:1.5rem 0}
td,th{text-align:left;vertical-align:baseline;padding:.3rem .6rem .3rem 0;overflow-wrap:break-word}
th:nth-child(1){width:12rem}th:nth-child(2){width:16rem}td p{margin:0}
tr{border-top:1px solid #ddd}tr:first-child{border-top:0}"""


def page_of(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document."""
    info = document["info"]
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        _text(info["description"]),
        '<p>For programs: <a href="openapi.json">openapi.json</a>. For agents: /mcp.</p>',
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            fields = _fields(operation, document["components"]["schemas"])
            parts += _operation(f"{method.upper()} {path}", operation, fields)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
        f"content='width=device-width'><title>{escape(info['title'])}</title>"
        f"<style>{_STYLE}</style>{''.join(parts)}"
    )


def _fields(operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The schemas of an operation's fields, in its query and its body."""
    found = {one["name"]: one["schema"] for one in operation.get("parameters", ())}
    content = operation.get("requestBody", {}).get("content", {})
    body = content.get("application/json", {}).get("schema", {})
    for one in (body, *body.get("anyOf", ())):
        if "$ref" in one:
            found |= schemas[one["$ref"].rpartition("/")[2]]["properties"]
    return found


def _operation(
    title: str, operation: dict[str, Any], fields: dict[str, dict[str, Any]]
) -> list[str]:
    parts = [
        f"<h2><code>{escape(title)}</code></h2>",
        _text(operation.get("description", operation["summary"])),
    ]
    if sample := operation.get("x-curl"):
        parts.append(f"<pre>{escape(sample)}</pre>")
    if fields:
        rows = [(name, _kind(one), one.get("description", "")) for name, one in fields.items()]
        parts.append(_table(("field", "values", "meaning"), rows))
    answers = [
        (status, ", ".join(answer.get("content", ())), answer["description"])
        for status, answer in operation["responses"].items()
    ]
    parts.append(_table(("status", "content type", "meaning"), answers))
    return parts


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(schema["enum"])
    kind = schema.get("type", "")
    name = str(kind[0] if isinstance(kind, list) else kind)  # the other one is null
    return {"array": "list", "boolean": "true | false", "string": "text"}.get(name, name)


def _text(text: str) -> str:
    marked = re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
    return "".join(f"<p>{paragraph}</p>" for paragraph in marked.split("\n\n"))


def _table(head: tuple[str, ...], rows: list[tuple[str, str, str]]) -> str:
    lines = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{escape(second)}<td>{_text(meaning)}"
        for name, second, meaning in rows
    )
    return f"<table><tr>{''.join(f'<th>{name}' for name in head)}{lines}</table>"
