"""Helpers for tests of the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.examples import memories
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.manifest import EmbeddingManifest, EmbeddingMetadata


class Ran(NamedTuple):
    """The result of a command."""

    code: int
    out: str
    err: str


Tribal = Callable[..., Ran]
"""Runs `tribal-mcp …` in its own folder."""


def rows(out: str) -> dict[str, str]:
    """Return the table that a command printed."""
    return dict(re.findall(r"^  (\S[\w ]*?)   +(\S.*)$", out, re.MULTILINE))


def plain(count: int) -> dict[str, Any]:
    """Write a bundle as the original TribalMemory does, without a checksum."""
    manifest = EmbeddingManifest(EmbeddingMetadata("model-a", 8, "tests"), count)
    bundle = PortableBundle(manifest, memories(count)).to_dict()
    del bundle["integrity"]
    return bundle


def write_bundle_with_an_invalid_entry(path: Path) -> None:
    """Write a bundle whose second entry has a number as its content."""
    bundle = plain(3)
    bundle["entries"][1]["content"] = 5
    path.write_text(json.dumps(bundle))
