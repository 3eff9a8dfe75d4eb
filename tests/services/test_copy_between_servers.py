"""Copies from and to real Chroma servers, interrupted at one exact request and continued."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.chroma_proxy import Answer, ProxiedRequest, pass_through, proxied
from tests.support.chroma_servers import RealServer
from tests.support.command_line import Tribal
from tests.support.examples import memories, memory
from tests.support.mcp_client import write_bundle
from tribal_mcp.services.maintenance import copy_store as copying

COUNT = 60


@pytest.mark.parametrize(
    "sides", [("server", "server"), ("server", "folder"), ("folder", "server")]
)
def test_repeating_a_copy_continues_after_the_connection_failed(
    tribal: Tribal,
    chroma_server: RealServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sides: tuple[str, str],
) -> None:
    source, target = sides
    monkeypatch.setattr(copying, "STEP", 10)
    write_bundle(tmp_path / "some.json", [*memories(COUNT - 1), memory(COUNT, embedding=None)])
    assert tribal("import", "some.json").code == 0
    assert tribal("forget", "memory-5").code == 0
    with proxied(chroma_server) as proxy:
        places = {
            side: f"{proxy.url}#{side}-of-{source}-{target}"
            if kind == "server"
            else f"{tmp_path / ('store' if side == 'from' else 'other')}#memories"
            for side, kind in (("from", source), ("to", target))
        }
        if source == "server":
            assert tribal("copy", "--to", places["from"]).code == 0
        # A copy to a server writes to it; a copy to a folder reads from one.
        cut = b'"ids"' if target == "server" else b'"embeddings"'
        verb = "upsert" if target == "server" else "get"
        left = [4]

        def cutting(request: ProxiedRequest, forward: Callable[[], Answer]) -> Answer:
            left[0] -= request.verb == verb and cut in request.body
            return forward() if left[0] >= 0 else Answer(400, b"cut off")

        proxy.handle = cutting
        command = ("copy", "--from", places["from"], "--to", places["to"])
        broken = tribal(*command)
        assert broken.code == 5, broken.out
        assert "refused the request (HTTP status 400)" in broken.err
        proxy.handle = pass_through
        rest = tribal(*command, "--json")
        assert rest.code == 0, rest.err
        again = tribal(*command, "--json")
        there = json.loads(rest.out), json.loads(again.out)
    assert 0 < there[0]["identical"] < COUNT - 1  # it was interrupted in the middle
    assert there[0]["written"] == COUNT - 1 - there[0]["identical"]
    assert (there[1]["identical"], there[1]["written"]) == (COUNT - 1, 0)
    assert there[1]["forgotten"] == 1
    assert there[0]["sha256"] == there[1]["sha256"]
