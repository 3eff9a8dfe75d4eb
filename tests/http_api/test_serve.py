"""`tribal-mcp serve`: the settings and addresses that it refuses."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.http_client import serving
from tests.support.mcp_client import SERVER, settings


@pytest.mark.parametrize(
    ("host", "more", "said"),
    [
        ("0.0.0.0", {}, "Set TRIBAL_HTTP_TOKEN"),  # noqa: S104 - refused
        ("::", {}, "Set TRIBAL_HTTP_TOKEN"),
        ("127.0.0.1", {"TRIBAL_HTTP_TOKEN": ""}, "TRIBAL_HTTP_TOKEN is not valid: it must be"),
        ("0.0.0.0", {"TRIBAL_HTTP_TOKEN": " "}, "and not empty"),  # noqa: S104
        ("127.0.0.1", {"TRIBAL_HTTP_READ_TOKEN": "x"}, "needs a TRIBAL_HTTP_TOKEN"),
        (
            "127.0.0.1",
            {"TRIBAL_HTTP_TOKEN": "x", "TRIBAL_HTTP_READ_TOKEN": "x"},
            "that differs from it",
        ),
        ("127.0.0.1", {"TRIBAL_HTTP_ORIGINS": "*"}, "TRIBAL_HTTP_ORIGINS contains '*'"),
        ("127.0.0.1", {"TRIBAL_HTTP_HOSTS": "a.example:80"}, "TRIBAL_HTTP_HOSTS contains"),
        ("127.0.0.1", {"TRIBAL_HTTP_TOKENS": "x"}, "Did you mean TRIBAL_HTTP_TOKEN?"),
        ("nowhere.invalid", {}, "Can't listen on nowhere.invalid:0"),
    ],
)
def test_serve_refuses_unsafe_or_invalid_settings(
    host: str, more: dict[str, str], said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [SERVER, "serve", "--host", host, "--port", "0"],
        env={**os.environ, **settings(tmp_path, **more)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "Listening" not in done.stderr


def test_serve_reports_a_port_that_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [SERVER, "serve", "--port", str(port)],
            env={**os.environ, **settings(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert f"Can't listen on 127.0.0.1:{port}: address already in use" in done.stderr


def test_beyond_loopback_a_token_and_a_known_host_name_are_required(tmp_path: Path) -> None:
    may = {"Authorization": "Bearer open-sesame"}
    with serving(tmp_path, host="0.0.0.0", TRIBAL_HTTP_TOKEN="open-sesame") as server:  # noqa: S104, S106
        assert server.ask("GET", "/v1/health").problem == (401, "unauthorized")
        assert server.ask("GET", "/v1/health", **may).status == 200
        other = server.ask("GET", "/v1/health", Host="192.168.7.7", **may)
        assert other.problem == (421, "wrong_host")
