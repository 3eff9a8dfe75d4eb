"""Which settings are in effect, and where each value is from."""

from collections.abc import Mapping

from tribal_mcp.config import in_effect, load
from tribal_mcp.next_steps import NextStep
from tribal_mcp.services.results.store import SettingResult, WhereResult
from tribal_mcp.stores.factory import location_of


def where(given: Mapping[str, str]) -> WhereResult:
    """The settings in effect.

    Args:
        given: settings that take the place of those of the environment.

    Raises:
        UsageError: a setting is not valid.
    """
    settings, _ = load(given)
    return WhereResult(
        location=location_of(settings),
        collection=settings.collection,
        settings=[
            SettingResult(variable=one.variable, value=one.value, source=one.source)
            for one in in_effect(given)
        ],
        notes=[
            (
                "These are the settings of this shell. The env block of an MCP client applies only "
                "to the server that the client starts."
            )
        ],
        next_steps=[NextStep("To count the memories there, run {call}.", "stats")],
    )
