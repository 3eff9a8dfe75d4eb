"""The OpenAPI document as an HTML page without scripts or external resources."""

import re
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

_STYLE = """\
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}
code,pre{font:14px/1.5 ui-monospace,monospace;background:#f4f4f2;border-radius:4px}
code{padding:.1em .3em}pre{padding:1rem;overflow:auto}h2{margin-top:3rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.3rem}
tr{border-top:1px solid #ddd}"""


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
            parts += _operation(method, path, operation)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
        f"content='width=device-width'><title>{escape(info['title'])}</title>"
        f"<style>{_STYLE}</style>{''.join(parts)}"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    parts = [
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>",
        _text(operation.get("description", operation["summary"])),
    ]
    if sample := operation.get("x-curl"):
        parts.append(f"<pre>{escape(sample)}</pre>")
    fields = [(p["name"], p["schema"]) for p in operation.get("parameters", ())]
    if fields:
        rows = [(name, _kind(schema), schema.get("description", "")) for name, schema in fields]
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
    return "list" if schema.get("type") == "array" else str(schema.get("type", ""))


def _text(text: str) -> str:
    marked = re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
    return "".join(f"<p>{paragraph}</p>" for paragraph in marked.split("\n\n"))


def _table(head: tuple[str, ...], rows: list[tuple[str, str, str]]) -> str:
    lines = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{escape(second)}<td>{_text(meaning)}"
        for name, second, meaning in rows
    )
    return f"<table><tr>{''.join(f'<th>{name}' for name in head)}{lines}</table>"
