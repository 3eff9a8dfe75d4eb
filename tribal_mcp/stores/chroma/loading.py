"""Imports Chroma without files of the working directory, and without what is never used here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Any

_EXPORTER = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"

_lock = Lock()


def load_chroma() -> None:
    """Import Chroma, which takes half a second; call it before the folder's lock is taken.

    Chroma's settings read `.env` in the working directory, at the import and later. A foreign file
    could break every write, and a pipe of that name would block for ever.
    """
    with _lock:
        if "chromadb" in sys.modules and "chromadb.config" in sys.modules:
            _forget_file()
            return
        with _without_file(), _without_checks(), _without_exporter():
            import chromadb.api.rust  # noqa: F401, PLC0415 - takes half a second
        _forget_file()


def _forget_file() -> None:
    sys.modules["chromadb.config"].Settings.model_config["env_file"] = None


@contextmanager
def _without_file() -> Iterator[None]:
    """No settings class reads a file within the block, and each reads the environment once.

    Chroma makes its settings seven times at its import, as the defaults of arguments.
    """
    from pydantic_settings import BaseSettings

    original = BaseSettings.__init__
    made: dict[type[BaseSettings], BaseSettings] = {}

    def init(self: BaseSettings, *args: Any, **values: Any) -> None:  # noqa: ANN401
        if not args and not values and (same := made.get(type(self))):
            self.__setstate__(deepcopy(same.__getstate__()))
            return
        original(self, *args, **{"_env_file": None, **values})
        if not args and not values:
            made[type(self)] = self

    BaseSettings.__init__ = init  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        BaseSettings.__init__ = original  # type: ignore[method-assign]


@contextmanager
def _without_checks() -> Iterator[None]:
    """No method defined within the block is compared with the one that it overrides.

    These checks are for Chroma's developers, and take a seventh of its import.
    """
    overrides: Any = import_module("overrides")  # a dependency of Chroma

    def override(method: Any = None, **_how: bool) -> Any:  # noqa: ANN401 - any method
        if method is None:
            return override
        method.__override__ = True
        return method

    originals = overrides.override, overrides.overrides
    overrides.override = overrides.overrides = override
    try:
        yield
    finally:
        overrides.override, overrides.overrides = originals


@contextmanager
def _without_exporter() -> Iterator[None]:
    """Within the block, the exporter of traces is a stand-in that imports it and gRPC if called."""
    if _EXPORTER in sys.modules:
        yield
        return

    def exporter(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - as the class itself
        return import_module(_EXPORTER).OTLPSpanExporter(*args, **options)

    module = ModuleType(_EXPORTER)
    module.OTLPSpanExporter = exporter  # type: ignore[attr-defined]
    sys.modules[_EXPORTER] = module
    try:
        yield
    finally:
        del sys.modules[_EXPORTER]
