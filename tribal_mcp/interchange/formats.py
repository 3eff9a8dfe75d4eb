"""The known formats, and which of them a source has."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from tribal_mcp.errors import UsageError
from tribal_mcp.interchange.ai_memory import AiMemory
from tribal_mcp.interchange.base import Evidence, Format
from tribal_mcp.interchange.basic_memory import BasicMemory
from tribal_mcp.interchange.cdp import Cdp
from tribal_mcp.interchange.chatgpt import ChatGPT
from tribal_mcp.interchange.chroma import Chroma
from tribal_mcp.interchange.claude import Claude
from tribal_mcp.interchange.claude_code import ClaudeCode
from tribal_mcp.interchange.claude_mem import ClaudeMem
from tribal_mcp.interchange.codex import Codex
from tribal_mcp.interchange.cogx import Cogx
from tribal_mcp.interchange.dated_list import DatedList
from tribal_mcp.interchange.gemini_takeout import GeminiTakeout
from tribal_mcp.interchange.generic import (
    GenericCsv,
    GenericJson,
    GenericJsonLines,
    GenericParquet,
)
from tribal_mcp.interchange.graphiti import Graphiti
from tribal_mcp.interchange.langmem import LangMem
from tribal_mcp.interchange.letta import Letta
from tribal_mcp.interchange.mcp_memory_service import McpMemoryService
from tribal_mcp.interchange.mem0 import Mem0
from tribal_mcp.interchange.memories_sh import MemoriesSh
from tribal_mcp.interchange.mif import Mif
from tribal_mcp.interchange.obsidian import Obsidian
from tribal_mcp.interchange.okf import Okf
from tribal_mcp.interchange.openclaw import OpenClaw
from tribal_mcp.interchange.pam import Pam
from tribal_mcp.interchange.pgvector import Pgvector
from tribal_mcp.interchange.qdrant import Qdrant
from tribal_mcp.interchange.reference_server import ReferenceServer
from tribal_mcp.interchange.rules import Rules
from tribal_mcp.interchange.shodh import Shodh
from tribal_mcp.interchange.source import Source
from tribal_mcp.interchange.vector_io import VectorIo

GROUP = "tribal_mcp.formats"
"""The entry point group of formats in other packages: each entry is a subclass of `Format`."""

BUILT_IN: tuple[type[Format], ...] = (
    AiMemory,
    BasicMemory,
    Cdp,
    ChatGPT,
    Chroma,
    Claude,
    ClaudeCode,
    ClaudeMem,
    Codex,
    Cogx,
    DatedList,
    GeminiTakeout,
    Graphiti,
    LangMem,
    Letta,
    McpMemoryService,
    Mem0,
    MemoriesSh,
    Mif,
    Obsidian,
    Okf,
    OpenClaw,
    Pam,
    Pgvector,
    Qdrant,
    ReferenceServer,
    Rules,
    Shodh,
    VectorIo,
    GenericCsv,
    GenericJson,
    GenericJsonLines,
    GenericParquet,
)


@dataclass(frozen=True, slots=True)
class Recognition:
    """What a source is.

    Attributes:
        format: its format.
        evidence: why.
        others: formats that it might also be read as, the most certain first.
    """

    format: Format
    evidence: Evidence
    others: Sequence[Format] = ()


@cache
def formats() -> dict[str, Format]:
    """All formats by name: those of this package, then those of other packages.

    Raises:
        UsageError: another package's format can't be loaded, or has the name of one that is there.
    """
    found = {kind.name: kind() for kind in BUILT_IN}
    for entry in entry_points(group=GROUP):
        try:
            kind = entry.load()
            made = kind()
        except Exception as error:
            raise UsageError(
                f"The format {entry.name!r:.80} of another package can't be loaded: "
                f"{type(error).__name__}: {error}. Update or remove that package."
            ) from error
        if not isinstance(made, Format) or made.name in found:
            raise UsageError(
                f"The format {entry.name!r:.80} of another package is not a format, or its name "
                "is taken. Update or remove that package."
            )
        found[made.name] = made
    return found


def recognise(source: Source) -> Recognition | None:
    """The format of a source, or None if no format claims it.

    Raises:
        UsageError: two formats claim it with the same certainty.
    """
    claims = [(e, f) for f in formats().values() if (e := f.recognise(source))]
    if not claims:
        return None
    claims.sort(key=lambda claim: -claim[0].certainty)
    (evidence, made), *rest = claims
    if rest and rest[0][0].certainty == evidence.certainty:
        names = " and ".join(f.name for e, f in claims if e.certainty == evidence.certainty)
        raise UsageError(
            f"{source.name!r:.80} could be any of these formats: {names}. Name the one that it has."
        )
    return Recognition(made, evidence, [f for _, f in rest])


def named(name: str, source: Source) -> Recognition:
    """The format that a user named, whether or not it is recognised.

    Raises:
        UsageError: there is no such format.
    """
    made = formats().get(name)
    if made is None:
        known = ", ".join(sorted(formats()))
        raise UsageError(f"There is no format {name!r:.80}. The formats are {known}.")
    return Recognition(made, made.recognise(source) or Evidence(0, "it was named"))


def mappable(source: Source) -> Recognition | None:
    """The format of a source whose fields can be mapped; None if it has no fields."""
    for made in formats().values():
        if evidence := made.with_mapping(source):
            return Recognition(made, evidence)
    return None


def mapped(source: Source) -> Recognition:
    """The format of a source whose fields the user has mapped.

    Raises:
        UsageError: the source is no list of records or table.
    """
    if found := mappable(source):
        return found
    raise UsageError(
        f"The fields of {source.name!r:.80} can't be mapped: it is no table or list of records in "
        "CSV, JSON, JSON Lines or Parquet. Nothing was imported."
    )
