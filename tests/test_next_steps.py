"""Next steps: what survives the pipe between the processes, and how they are put into words."""

import json

from tribal_mcp.errors import BundleError
from tribal_mcp.next_steps import NextStep, from_json, in_words, to_json
from tribal_mcp.services.results.store import HistoryResult

STEPS = [
    NextStep("To import it, run {call}.", "import", {"input_path": "a.json", "dry_run": False}),
    NextStep("To undo it, run {call}.", "undo", {"point": ...}),
    NextStep("Check the disk."),
]


def test_next_steps_survive_the_pipe() -> None:
    assert from_json(json.loads(json.dumps(to_json(STEPS)))) == STEPS


def test_an_error_that_is_extended_keeps_its_class_and_its_next_steps() -> None:
    error = BundleError("It is damaged.", STEPS[0]).extended("Nothing was written.", STEPS[2])
    assert isinstance(error, BundleError)
    assert str(error) == "It is damaged. Nothing was written."
    assert error.next_steps == (STEPS[0], STEPS[2])


def test_a_result_keeps_its_next_steps_out_of_dumps_and_schema() -> None:
    result = HistoryResult(operations=[], next_steps=STEPS)
    assert result.next_steps == STEPS
    assert "next_steps" not in result.model_dump()
    assert "NextStep" not in json.dumps(HistoryResult.model_json_schema())
    assert "next_steps" not in HistoryResult.model_json_schema()["properties"]


def test_an_interface_renders_the_calls() -> None:
    def as_call(action: str, arguments: object) -> str:
        return f"{action}{arguments!r}"

    assert in_words([STEPS[1], STEPS[2]], as_call) == (
        "To undo it, run undo{'point': Ellipsis}. Check the disk."
    )
