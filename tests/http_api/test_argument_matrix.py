"""Every argument of every route with every wrong value: a problem, and nothing changes.

The routes and their arguments are those of the OpenAPI document.
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from tests.http_api.conftest import COUNT
from tests.support.http_client import HttpServer
from tests.support.wrong_values import FOREIGN, misspelled, oversized, wrong_values
from tribal_mcp.portability.bundle.envelope import OPTIONS

WRONG_TEXT = {
    "boolean": ["TRUE", "1", "yes", "on", "", " true", "null", "tru"],
    "string": [],
    "array": [],
}
"""What a query, which is text, may not say for each type."""

Case = tuple[str, str, Any]
"""A path with its query, what is wrong, and a body."""


def single(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without its alternative null."""
    kind = schema["type"]
    return {**schema, "type": kind[0] if isinstance(kind, list) else kind}


def of_query(path: str, parameters: list[dict[str, Any]], body: Any) -> Iterator[Case]:  # noqa: ANN401
    """What a query may not have."""
    known = {one["name"]: single(one["schema"]) for one in parameters}
    for name, schema in known.items():
        texts = WRONG_TEXT[schema["type"]] + (
            [f"{schema['enum'][0]}x", ""] if "enum" in schema else []
        )
        for text in texts:
            yield f"{path}?{name}={quote(text)}", f"{name} is {text!r}", body
        if schema["type"] != "array":
            yield f"{path}?{name}=true&{name}=false", f"{name} twice", body
        yield f"{path}?{misspelled(name)}=true", f"{name} misspelled", body
        yield f"{path}?{name.upper()}=true", f"{name} in capitals", body
    for name in set(FOREIGN) - {""}:
        yield f"{path}?{quote(name)}=true", f"{name!r} is foreign", body


def of_body(path: str, known: dict[str, Any]) -> Iterator[Case]:
    """What a JSON body may not have."""
    bodies: list[Any] = [5, "text", [], [{}], True]
    for wrong in bodies:
        yield path, f"a body that is {wrong!r}", json.dumps(wrong)
    for name, one in known.items():
        schema = single(one)
        for what, value in wrong_values(schema):
            yield path, f"{name} is {what}", {name: value}
        yield path, f"{name} misspelled", {misspelled(name): True}
        yield path, f"{name} twice", f'{{"{name}": null, "{name}": null}}'
        if schema["type"] == "array":
            yield path, f"{name} is oversized", {name: oversized(schema)}
    for name in FOREIGN:
        yield path, f"{name!r} is foreign", {name: True}
        yield path, f"{name!r} is foreign, and null", {name: None}


def cases_of(document: dict[str, Any]) -> Iterator[Case]:
    """Every case of every route that the document describes."""
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method != "post":
                continue
            parameters = operation.get("parameters", [])
            content = operation["requestBody"]["content"]["application/json"]["schema"]
            refs = [content.get("$ref"), *(one.get("$ref") for one in content.get("anyOf", ()))]
            [fields] = [schemas[r.rsplit("/", 1)[1]]["properties"] for r in refs if r] or [{}]
            yield from of_query(path, parameters, {} if fields else BUNDLE)
            if fields:
                yield from of_body(path, fields)
            else:  # an import, whose options may also stand beside the bundle
                options = {one["name"]: one["schema"] for one in parameters}
                for _, what, beside in of_body(path, options):
                    if isinstance(beside, dict):
                        yield path, f"{what}, beside the bundle", {"bundle": BUNDLE} | beside
                for name in {*OPTIONS, *map(misspelled, OPTIONS), "dryrun", "DRY_RUN", "dry-run"}:
                    for value in (True, None):
                        yield path, f"{name} in the bundle", BUNDLE | {name: value}


BUNDLE = {
    "manifest": {"schema_version": "1.0", "embedding": {"model_name": "m", "dimensions": 0}},
    "entries": [{"id": "new", "content": "Tea.", "created_at": "2026-01-01"}],
}


def test_no_wrong_argument_is_taken_and_nothing_changes(server: HttpServer) -> None:
    before = server.ask("GET", "/v1/stats").json
    cases = list(cases_of(server.ask("GET", "/openapi.json").json))
    problems = {}
    for path, what, body in cases:
        answer = server.ask("POST", path, body, Content_Type="application/json")
        if answer.status not in {400, 413, 422} or "bug" in answer.problem[1]:
            problems[f"{path}: {what}"] = (answer.status, answer.body[:300].decode())
        elif len(answer.body) > 3_000:
            problems[f"{path}: {what}"] = (answer.status, f"{len(answer.body)} bytes")
    assert problems == {}, json.dumps(problems, indent=2)
    assert len(cases) > 200
    assert server.ask("GET", "/v1/stats").json == before
    assert before["count"] == COUNT
