"""Random histories of machines that share two folders, so that each change can come in twice."""

import os
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.services.sync.machines import Machine
from tribal_mcp.portability.replication.reconcile import Known
from tribal_mcp.portability.replication.versions import Fields, Stamp, Version, digest_of
from tribal_mcp.services.sync.other_folders import with_other_folders
from tribal_mcp.services.sync.state import Row

pytestmark = pytest.mark.anyio
RUNS = int(os.environ.get("TRIBAL_SYNC_RUNS", "48")) // 6
FIRST = int(os.environ.get("TRIBAL_SYNC_SEED", "0"))
SCOPES: list[dict[str, Any]] = [
    {"all": True},
    {"tags": ["a"]},
    {"tags": ["a", "c"]},
    {"tags": ["b"]},
]


class History:
    """Machines with a store each, two shared folders, and what nobody has deleted.

    Args:
        random: decides everything.
        folder: of this history.
        scopes: whether machines share only some tags in the folders, and change them; else all
            share everything.
    """

    def __init__(self, random: Random, folder: Path, *, scopes: bool) -> None:
        self.random = random
        self.scopes = scopes
        self.is_private = scopes and random.random() < 0.5  # nothing is sure to be shared
        self.there: set[str] = set()
        self.machines = []
        for number in range(random.randint(2, 3)):
            one = Machine(folder / f"m{number}", folder / "one")
            self.machines.append((one, Machine(one.home, folder / "two", one.store)))

    async def edit(self, machine: Machine, text: str) -> None:
        """Write a memory anew, or only its tags."""
        number = self.random.randrange(3)
        was = await machine.store.get(f"memory-{number}")
        tags = self.random.sample("abc", self.random.randint(1, 2))
        content = was.content if was and self.random.random() < 0.3 else text
        now = datetime.now(UTC)  # later than any tombstone
        await machine.put(number, content=content, tags=tags, updated_at=now)
        self.there.add(f"memory-{number}")

    async def delete(self, machine: Machine) -> None:
        """Delete a memory."""
        if ids := sorted(await machine.store.list_ids()):
            deleted = self.random.choice(ids)
            await machine.store.delete([deleted])
            self.there.discard(deleted)

    async def change_scope(self, machine: Machine) -> None:
        """Share other memories from now on, at once."""
        if machine.shared.name == "one" or self.is_private:
            await machine.sync(**self.random.choice(SCOPES))

    async def run(self) -> None:
        """Changes and syncs in any order, then syncs until nothing is new."""
        if self.scopes:
            for one, two in self.machines:
                await one.sync(tags=["a"])
                await two.sync(tags=["b"] * self.is_private)
        for step in range(self.random.randint(10, 30)):
            machine = self.random.choice(self.random.choice(self.machines))
            what = self.random.random()
            if what < 0.35:
                await self.edit(machine, f"text {step}")
            elif what < 0.45:
                await self.delete(machine)
            elif what < 0.55 and self.scopes:
                await self.change_scope(machine)
            else:
                await machine.sync()
        for _ in range(20):
            results = [await machine.sync() for pair in self.machines for machine in pair]
            if not any(
                r.published + r.added + r.changed + r.deleted + r.files_read for r in results
            ):
                break
        else:
            raise AssertionError("the machines do not come to rest")
        texts = [await one.texts() for one, _ in self.machines]
        if not self.is_private:
            assert all(found == texts[0] for found in texts), texts
        assert self.there <= set().union(*texts), (self.there, texts)


@pytest.mark.parametrize("scopes", [False, True], ids=["all memories", "some tags"])
async def test_machines_that_share_two_folders_come_to_rest_and_lose_nothing(
    scopes: bool, tmp_path: Path
) -> None:
    for seed in range(FIRST, FIRST + RUNS):
        random = Random(seed)  # noqa: S311 - repeatable
        try:
            await History(random, tmp_path / str(seed), scopes=scopes).run()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def version(wall: int, replica: str, fields: Fields | None, *ancestors: Stamp) -> Version:
    return Version(Stamp(wall, replica, digest_of(fields)), fields, frozenset(ancestors))


def row(shown: Fields | None, *heads: Version) -> Row:
    return Row(
        Known(heads, digest_of(shown)), lines={head.stamp: (b"", "other/1") for head in heads}
    )


def test_of_versions_that_two_folders_show_differently_the_later_one_stays_in_both() -> None:
    early: Fields = {"content": "early", "tags": [], "related_to": []}
    late: Fields = {**early, "content": "late"}
    ids = count()

    def made(wall: int, fields: Fields | None, *replaced: Version) -> Version:
        ancestors = (head.stamp for head in replaced)
        return version(wall, f"{next(ids)}", fields, *ancestors)  # other names in each folder

    first = row(early, made(50, None), made(20, early, made(30, late)))
    second = row(late, made(30, late, made(20, early), made(50, None)))
    found, at_us = with_other_folders(second, early, [("", first)], ["team"])
    assert (found.known.shown, at_us) == (digest_of(early), 20)  # so it shows the later one again
    found, at_us = with_other_folders(first, late, [("", second)], ["team"])
    assert (found, at_us) == (first, 30)  # so it is replaced
