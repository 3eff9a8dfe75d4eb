"""What a disk may hold after a power cut: states of a folder, made from a trace.

Two sets of rules. `ext4`: changes of names and sizes reach the disk in their order, and a sync of
any file takes all earlier ones with it. `posix`: a name is only safe once its folder was synced,
and what was not synced may be there or not, each change on its own. Under both, what a file holds
is only safe once the file was synced; the rest may be there or not in blocks of 512 or 4,096 bytes,
each as it was at a moment of its own, and a file may have grown by zeros.
"""

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.campaigns.trace import Operation, Trace
from tribal_mcp.stores.chroma.files.hnsw import FILES

Rules = Literal["ext4", "posix"]
Fate = Literal["nothing", "names", "zeros", "torn 512", "torn 4096", "everything"]
"""What of the unsynced reaches the disk."""
RULES: tuple[Rules, ...] = ("ext4", "posix")
FATES: tuple[Fate, ...] = ("nothing", "names", "zeros", "torn 512", "torn 4096", "everything")

_BACKUPS = "tribal-mcp/guard/"
_NAMES = {"create", "rename", "remove", "mkdir"}


@dataclass(frozen=True, slots=True)
class State:
    """A folder as it is found after the cut.

    Attributes:
        files: what each file holds, by path.
        folders: the paths of its folders.
        marks: what had been acknowledged.
    """

    files: dict[str, bytes]
    folders: list[str]
    marks: list[str]

    def put(self, place: Path) -> None:
        """Write it to a directory that does not exist yet."""
        place.mkdir()
        for path in sorted(self.folders):
            (place / path).mkdir(parents=True, exist_ok=True)
        for path, content in self.files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(content)
        # The time of a change may reach the disk later than the change: so an index file of the
        # size that was recorded has the recorded time, whatever it holds.
        for path, content in self.files.items():
            if path.startswith(_BACKUPS) and content:
                _, stamps, *_ = json.loads(content.partition(b"\n")[0])
                for name, stamp in zip(FILES, stamps, strict=True):
                    file = place / path.removeprefix(_BACKUPS) / name
                    if stamp and file.exists() and file.stat().st_size == stamp[0]:
                        os.utime(file, ns=(stamp[1], stamp[1]))


def cut(trace: Trace, at: int, rules: Rules, fate: Fate, chance: random.Random) -> State:
    """The state after a power cut before the operation with the number `at`."""
    return _Cut(trace.operations[:at], rules, fate, chance).state(trace)


class _Cut:
    """One power cut: which operations reached the disk."""

    def __init__(
        self, done: list[Operation], rules: Rules, fate: Fate, chance: random.Random
    ) -> None:
        self._done, self._rules, self._fate, self._chance = done, rules, fate, chance
        self._synced: dict[int, int] = {}
        self._folders: dict[str, int] = {}
        last_sync = 0
        for number, operation in enumerate(done):
            if operation.kind == "sync":
                self._synced[operation.file] = last_sync = number
            elif operation.kind == "sync folder":
                self._folders[operation.path] = last_sync = number
        # With ext4's rules, all names and sizes from before this are on the disk.
        self._committed = {
            "nothing": last_sync,
            "torn 512": chance.randint(last_sync, len(done)),
            "torn 4096": chance.choice([last_sync, len(done)]),
        }.get(fate, len(done))
        self._truncated: set[int] = set()

    def state(self, trace: Trace) -> State:
        """The folder after the cut."""
        names = dict(trace.names)
        for number, operation in enumerate(self._done):
            if operation.kind in _NAMES and self._reached(number, operation):
                _apply(names, operation)
            elif operation.kind == "truncate" and self._reached(number, operation):
                self._truncated.add(number)
        changes: dict[int, list[tuple[int, Operation]]] = {}
        for number, operation in enumerate(self._done):
            if operation.kind in ("write", "truncate"):
                changes.setdefault(operation.file, []).append((number, operation))
        contents = {
            file: self._content(before, changes.get(file, []), self._synced.get(file, -1))
            for file, before in trace.contents.items()
        }
        return State(
            {path: contents[file] for path, file in names.items() if file},
            [path for path, file in names.items() if not file],
            [operation.path for operation in self._done if operation.kind == "mark"],
        )

    def _reached(self, number: int, operation: Operation) -> bool:
        """Whether a change of a name or a size is on the disk."""
        if self._rules == "ext4":
            return number < self._committed
        if operation.kind == "truncate":
            safe = self._synced.get(operation.file, -1) > number
        else:
            names = filter(None, (operation.path, operation.target))
            parents = [name.rpartition("/")[0] for name in names]
            safe = max(self._folders.get(parent, -1) for parent in parents) > number
        if safe or self._fate in ("everything", "nothing"):
            return safe or self._fate == "everything"
        return self._chance.random() < 0.5

    def _content(self, before: bytes, changes: list[tuple[int, Operation]], synced: int) -> bytes:
        data = bytearray(before)
        torn = self._fate.startswith("torn") and self._chance.random() < 2 / 3
        block = 512 if self._fate == "torn 512" else 4096
        versions: dict[int, int] = {}
        last = changes[-1][0] if changes else 0
        for number, operation in changes:
            if operation.kind == "truncate":
                if number >= synced and number not in self._truncated:
                    break  # what was written after it lies in blocks that the file does not have
                del data[operation.offset :]
                _grow(data, operation.offset)
                versions.clear()
                continue
            end = operation.offset + len(operation.data)
            if number < synced or self._fate == "everything":
                _grow(data, end)
                data[operation.offset : end] = operation.data
            elif self._fate == "zeros":
                _grow(data, end)
            elif torn:
                for unit in range(operation.offset // block, (end - 1) // block + 1):
                    if unit not in versions:
                        moment = self._chance.randint(max(synced, 0), last + 1)
                        versions[unit] = self._chance.choice([0, last + 1, moment])
                    if number < versions[unit]:
                        first = max(operation.offset, unit * block)
                        stop = min(end, (unit + 1) * block)
                        _grow(data, stop)
                        data[first:stop] = operation.data[
                            first - operation.offset : stop - operation.offset
                        ]
        return bytes(data)


def _apply(names: dict[str, int], operation: Operation) -> None:
    path, target = operation.path, operation.target
    inside = [name for name in names if name == path or name.startswith(path + "/")]
    match operation.kind:
        case "create" | "mkdir":
            names[path] = operation.file
        case "remove":
            for name in inside:
                del names[name]
        case _:
            for name in inside:
                names[target + name.removeprefix(path)] = names.pop(name)
            if operation.file:
                names[target] = operation.file


def _grow(data: bytearray, size: int) -> None:
    data.extend(bytes(max(0, size - len(data))))
