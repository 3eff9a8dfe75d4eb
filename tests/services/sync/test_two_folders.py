"""Random histories of machines that share two folders, so that each change can come in twice."""

import os
from pathlib import Path
from random import Random

import pytest

from tests.services.sync.machines import Machine

pytestmark = pytest.mark.anyio
RUNS = int(os.environ.get("TRIBAL_SYNC_RUNS", "36")) // 6
FIRST = int(os.environ.get("TRIBAL_SYNC_SEED", "0"))


async def change(machine: Machine, random: Random, text: str) -> None:
    """An edit, or a deletion."""
    number = random.randrange(3)
    if random.random() < 0.7:
        await machine.put(number, content=text, tags=[random.choice("abc")])
    else:
        await machine.store.delete([f"memory-{number}"])


async def run(random: Random, folder: Path) -> None:
    """Changes and syncs in any order, then syncs until nothing is new."""
    both = []
    for number in range(random.randint(2, 3)):
        one = Machine(folder / f"m{number}", folder / "one")
        both.append((one, Machine(one.home, folder / "two", one.store)))
    for step in range(random.randint(10, 30)):
        machines = random.choice(both)
        if random.random() < 0.5:
            await change(machines[0], random, f"text {step}")
        else:
            await random.choice(machines).sync()
    for _ in range(20):
        results = [await machine.sync() for pair in both for machine in pair]
        if not any(r.published + r.added + r.changed + r.deleted + r.files_read for r in results):
            break
    else:
        raise AssertionError("the machines do not come to rest")
    texts = [await one.texts() for one, _ in both]
    assert all(found == texts[0] for found in texts), texts


async def test_machines_that_share_two_folders_come_to_rest_with_the_same(tmp_path: Path) -> None:
    for seed in range(FIRST, FIRST + RUNS):
        try:
            await run(Random(seed), tmp_path / str(seed))  # noqa: S311 - repeatable
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
