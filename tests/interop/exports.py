"""Has the real programs read what our exports write, and reads their stores back."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.interchange.samples import read_sample, source_at
from tests.interchange.test_writing import without_lost, written
from tribal_mcp.interchange.formats import formats
from tribal_mcp.portability.memory import MemoryEntry

READERS = {
    "reference_server": "reference-server",
    "mcp_memory_service": "mcp-memory-service",
    "mem0": "mem0",
    "basic_memory": "basic-memory",
    "pam": "pam",
    "okf": "okf",
}
"""The format that each program reads, by the name of its reader."""

MEMORIES = [
    MemoryEntry(
        id="deploy",
        content="The deploy branch is called release.",
        created_at=datetime(2026, 5, 1, 8, 30, tzinfo=UTC),
        tags=["deploy", "infra"],
        context="From the retro.",
        confidence=0.75,
    ),
    MemoryEntry(
        id="old",
        content="Staging lies in Zürich.",
        created_at=datetime(2026, 5, 2, tzinfo=UTC),
        related_to=["deploy"],
    ),
    MemoryEntry(
        id="new/1",
        content='Staging lies in Bern.\n\n- Since "May": 東京',
        created_at=datetime(2026, 6, 2, tzinfo=UTC),
        updated_at=datetime(2026, 7, 2, tzinfo=UTC),
        supersedes="old",
        metadata={"team": "web", "n": [1, {"k": None}]},
    ),
]


def check_export(
    name: str, program: str, command: list[str], run: Callable[[list[str]], str]
) -> tuple[str, list[str]]:
    """The row of the table for a program, and what is wrong.

    Args:
        name: of the reader.
        program: with its version.
        command: runs a writer; that of the reader stands beside it.
        run: runs a command, and returns what it prints.
    """
    made = formats()[READERS[name]]
    reader = str(Path(__file__).parent / "readers" / f"read_{name}.py")
    with TemporaryDirectory() as private:
        export, store = Path(private) / "export", Path(private) / "store"
        for path, content in written(made, MEMORIES).items():
            target = export / path if made.writes == "folder" else export
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        words = [command[0], reader, str(export), str(store), *command[3:]]
        read = json.loads(run(words))
        wrong = list(_missing(read["texts"]))
        back = read_sample(source_at(store / read["store"]))[1] if "store" in read else []
        if back:
            wrong += _differences(back, {e.id: set(made.lost(e)) for e in MEMORIES}, made.name)
    held = "; ".join(wrong) or ("equal" if back else "")
    return f"| {program} | `{made.name}` | {len(read['texts'])} | {held} |", wrong


def _missing(texts: list[str]) -> Iterator[str]:
    read = [text.strip() for text in texts]
    for entry in MEMORIES:
        if entry.content not in read:
            yield f"{entry.content!r} is missing"
    if len(texts) != len(MEMORIES):
        yield f"{len(texts)} memories instead of {len(MEMORIES)}"


def _differences(back: list[MemoryEntry], lost: dict[str, set[str]], name: str) -> Iterator[str]:
    """What a program has changed that is not announced as lost."""
    read = {entry.id: entry for entry in back}
    for entry in MEMORIES:
        found = read.get(entry.id)
        if found is None:
            yield f"{name}: {entry.id} did not come back"
            continue
        ours, theirs = without_lost(entry, lost[entry.id]), without_lost(found, lost[entry.id])
        for field in ours.keys() - {"embedding", "extra", "imported_from"}:
            if ours[field] != theirs[field] and field not in _ADDED.get(name, ()):
                yield f"{field} of {entry.id} is {theirs[field]!r} instead of {ours[field]!r}"


_ADDED = {"mcp-memory-service": {"metadata"}}
"""What a program adds to each memory that it imports: here `import_info`."""
