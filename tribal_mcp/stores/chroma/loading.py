"""Imports Chroma without letting it read a file of the working directory."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

_lock = Lock()


def load_chroma() -> None:
    """Import Chroma, which takes seconds; call it before the folder's lock is taken.

    Chroma's settings read `.env` in the working directory, at the import and later. A foreign file
    could break every write, and a pipe of that name would block for ever.
    """
    with _lock:
        if "chromadb" in sys.modules and "chromadb.config" in sys.modules:
            _forget_file()
            return
        with _without_file():
            import chromadb  # noqa: F401, PLC0415 - takes seconds
        _forget_file()


def _forget_file() -> None:
    sys.modules["chromadb.config"].Settings.model_config["env_file"] = None


@contextmanager
def _without_file() -> Iterator[None]:
    """No settings class reads a file within the block."""
    from pydantic_settings import BaseSettings

    original = BaseSettings.__init__

    def init(self: BaseSettings, *args: Any, **values: Any) -> None:  # noqa: ANN401
        original(self, *args, **{"_env_file": None, **values})

    BaseSettings.__init__ = init  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        BaseSettings.__init__ = original  # type: ignore[method-assign]
