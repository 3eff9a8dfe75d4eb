"""Errors: their documentation is generated, and no text of the validation library is shown."""

import re
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from tests.support.error_table import PAGE, documented, tree, with_table
from tribal_mcp import errors
from tribal_mcp.cli.main import app
from tribal_mcp.errors import invalid_value
from tribal_mcp.http_api import problems

ROOT = Path(__file__).parents[1]


def test_the_tree_in_the_module_shows_every_error() -> None:
    assert errors.__doc__ is not None
    assert "\n".join(["TribalError", *tree()]) in errors.__doc__


def test_the_documented_table_is_the_generated_one() -> None:
    assert with_table(PAGE.read_text()) == PAGE.read_text()


@pytest.mark.parametrize(
    "text",
    [
        app.get_help(app.make_context("tribal-mcp", [], resilient_parsing=True)),
        (ROOT / "docs" / "commands.md").read_text(),
    ],
)
def test_every_exit_code_is_listed_in_the_help_and_in_the_docs(text: str) -> None:
    [listed] = re.findall(r"Exit codes(.*?)(?:\n\n|\Z)", text, re.DOTALL)
    assert {kind.exit_code for kind in documented()} | {0, 1} == set(
        map(int, re.findall(r"\b\d+\b", listed))
    )


def test_every_http_status_is_listed_in_the_docs() -> None:
    rows = re.findall(r"^\| (\d[\d, ]*) \|", (ROOT / "docs" / "http.md").read_text(), re.MULTILINE)
    listed = {int(status) for row in rows for status in row.split(",")}
    answered = {problems.response_of(kind("x.")).status_code for kind in documented()}
    assert answered | problems._MEANINGS.keys() == listed - {405}  # the router's own


class Model(BaseModel, extra="forbid"):
    count: int = Field(1, ge=1, lt=10)
    ratio: float = Field(1.0, gt=0, le=2, allow_inf_nan=False)
    name: str = Field("abc", min_length=2, max_length=4)
    label: str = Field("a", min_length=1)
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    items: list[int] = Field([1], min_length=1, max_length=2)
    inner: dict[str, int] = Field({})
    path: Path = Path()
    even: int = 2

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("it must be even")
        return value


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("count", "x", "it must be a whole number"),
        ("count", 1.5, "it must be a whole number"),
        ("count", 0, "it must be at least 1"),
        ("count", 10, "it must be less than 10"),
        ("ratio", "x", "it must be a number"),
        ("ratio", float("nan"), "it must be a finite number"),
        ("ratio", 0, "it must be greater than 0.0"),
        ("ratio", 3, "it must be at most 2.0"),
        ("name", 5, "it must be a string"),
        ("name", "a", "it must have at least 2 characters"),
        ("name", "abcde", "it must have at most 4 characters"),
        ("label", "", "it must not be empty"),
        ("kind", "c", "it must be 'a' or 'b'"),
        ("flag", "x", "it must be true or false"),
        ("items", "x", "it must be a list"),
        ("items", [], "it must have at least 1 item"),
        ("items", [1, 2, 3], "it must have at most 2 items"),
        ("inner", [], "it must be an object"),
        ("path", 5, "it must be a path"),
        ("even", 3, "it must be even"),
        ("other", 3, "there is no such field"),
    ],
)
def test_an_invalid_value_is_explained_in_our_own_words(
    field: str,
    value: object,
    reason: str,
) -> None:
    with pytest.raises(ValidationError) as raised:
        Model.model_validate({field: value})
    assert [invalid_value(problem) for problem in raised.value.errors()] == [reason]
