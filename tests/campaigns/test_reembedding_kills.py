"""A change of model and back is killed repeatedly: nothing is lost or embedded twice."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.campaigns.processes import report, times
from tests.support.embedding_server import EmbeddingServer, embedding_server, words_vector
from tests.support.examples import memory
from tests.support.mcp_client import read_back, write_bundle
from tribal_mcp.embedding.base import BATCH

pytestmark = pytest.mark.campaign

PLANTED = {"memory-7": "Ada keeps bees", "memory-11": "The key is under the mat"}


def tribal(
    folder: Path, server: EmbeddingServer, dimensions: int, *words: str
) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "TRIBAL_DATA_DIR": str(folder / "store"),
        **server.settings(dimensions),
    }
    command = [sys.executable, "-m", "tribal_mcp", *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def nearest(stored: dict[str, dict[str, object]], question: str, dimensions: int) -> str:
    ids = list(stored)
    vectors = np.array([stored[i]["embedding"] for i in ids], np.float32)
    return ids[int(np.argmax(vectors @ np.array(words_vector(question, dimensions), np.float32)))]


def test_a_killed_change_of_model_resumes_where_it_stopped(tmp_path: Path) -> None:
    count, kills = times(200, 5000), times(2, 20)
    chance = random.Random(3)  # noqa: S311
    write_bundle(
        tmp_path / "some.json",
        (
            memory(n, content=PLANTED.get(f"memory-{n}", f"fact {n}"), embedding=None)
            for n in range(count)
        ),
    )
    done = 0
    with embedding_server() as server:
        first = tribal(tmp_path, server, 384, "import", str(tmp_path / "some.json"))
        assert first.wait() == 0
        assert tribal(tmp_path, server, 384, "reembed").wait() == 0
        for dimensions in (768, 384):
            server.embedded.clear()
            begun = 0
            for _ in range(kills // 2 + kills % 2):
                process = tribal(tmp_path, server, dimensions, "reembed", "--all")
                # Kill it after a random number of further texts.
                aim = begun + chance.randrange(1, max(2, 2 * count // (kills + 1)))
                while sum(server.embedded.values()) < aim and process.poll() is None:
                    time.sleep(0.001)
                process.kill()
                done += process.wait() != 0
                begun = sum(server.embedded.values())
            assert tribal(tmp_path, server, dimensions, "reembed", "--all").wait() == 0
            stored = read_back(tmp_path)
            assert len(stored) == count
            for entry in stored.values():
                expected = np.array(words_vector(str(entry["content"]), dimensions), np.float32)
                assert np.float32(entry["embedding"]).tobytes() == expected.tobytes()
            for memory_id, fact in PLANTED.items():
                assert nearest(stored, fact, dimensions) == memory_id
            assert len(server.embedded) == count
            again = sum(server.embedded.values()) - count
            assert again <= (kills // 2 + kills % 2) * BATCH
    report(f"{count:,} memories, 384 to 768 and back, {done} kills: complete, found as before")
