"""compose.yaml and the Dockerfile refer to things that exist, checked without Docker."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # no stubs are installed

from tribal_mcp.cli.main import app
from tribal_mcp.config import HttpSettings, Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text()))


def test_every_file_copied_into_the_image_exists_and_they_suffice_to_install() -> None:
    copied: list[str] = []
    for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE):
        copied += shlex.split(line)[:-1]
    assert all((ROOT / name).exists() for name in copied)
    project = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r'^(?:readme|license-files) = .*?"([^"]+)"', project, re.MULTILINE)
    assert set(named) | {"pyproject.toml", "tribal_mcp", "constraints.txt"} <= set(copied)


def test_the_command_of_the_image_and_its_options_exist() -> None:
    [line] = re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)
    program, name, *options = json.loads(line)
    assert program == "tribal-mcp"
    command = app.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known


def test_the_services_use_existing_settings_and_reach_each_other() -> None:
    services = compose()["services"]
    environment = services["tribal-mcp"]["environment"]
    known = {f"TRIBAL_{name}".upper() for name in Settings.model_fields}
    known |= {f"TRIBAL_HTTP_{name}".upper() for name in HttpSettings.model_fields}
    assert environment.keys() <= known
    assert environment["TRIBAL_CHROMA_URL"] == "http://chroma:8000"
    assert "chroma" in services
    assert environment["TRIBAL_HTTP_TOKEN"].startswith("${TRIBAL_HTTP_TOKEN:?")
    [port] = services["tribal-mcp"]["ports"]
    assert port.startswith("127.0.0.1:")
    assert "ports" not in services["chroma"]


def test_the_chroma_image_has_the_tested_version() -> None:
    [pin] = re.findall(r"chromadb==([\d.]+)", (ROOT / "pyproject.toml").read_text())
    assert compose()["services"]["chroma"]["image"] == f"chromadb/chroma:{pin}"
