"""Checks of the arguments of the documented Python API: a wrong one is a `UsageError` in words."""

import inspect
from enum import StrEnum
from typing import TypeVar

from tribal_mcp.errors import UsageError

_Choice = TypeVar("_Choice", bound=StrEnum)


def check_type(name: str, value: object, kind: type, words: str) -> None:
    """Refuse a value of another type; `words` name the right one."""
    if not isinstance(value, kind):
        raise _wrong_type(name, value, words)


def check_optional(name: str, value: object, kind: type, words: str) -> None:
    """The same, but None is allowed."""
    if value is not None:
        check_type(name, value, kind, f"{words} or None")


def check_store(store: object) -> None:
    """Refuse what has not the methods of a store."""
    if isinstance(store, type) or not hasattr(store, "session"):
        raise _wrong_type("store", store, "a store, such as open_store returns")


def check_embedder(embedder: object) -> None:
    """Refuse what has not the methods of an embedder."""
    if embedder is not None and (isinstance(embedder, type) or not hasattr(embedder, "embed")):
        raise _wrong_type("embedder", embedder, "an Embedder or None")


def check_count(name: str, value: object) -> None:
    """Refuse what is not a positive integer."""
    if type(value) is not int or value < 1:
        raise UsageError(f"{name} is {value!r:.40}; it must be a positive integer.")


def check_callback(name: str, value: object, arguments: str) -> None:
    """Refuse what can't be called, or would have to be awaited."""
    called = getattr(value, "func", value)
    if any(map(inspect.iscoroutinefunction, (called, getattr(called, "__call__", None)))):  # noqa: B004
        raise UsageError(f"{name} is async; it would not be awaited. Give a plain function.")
    if value is not None and not callable(value):
        raise UsageError(f"{name} must be a function of {arguments}.")


def switch(name: str, value: object) -> bool:
    """A true or false value; None means false."""
    if value is not None and type(value) is not bool:
        raise UsageError(f"{name} is {value!r:.40}; it must be True or False.")
    return bool(value)


def choice(name: str, value: object, default: _Choice) -> _Choice:
    """The choice that a value names; None means the default."""
    if value is None:
        return default
    try:
        return type(default)(str(value))
    except ValueError:
        choices = ", ".join(type(default))
        raise UsageError(f"{name} is {value!r:.40}; it must be one of {choices}.") from None


def _wrong_type(name: str, value: object, words: str) -> UsageError:
    return UsageError(f"{name} is of type {type(value).__name__:.40}; it must be {words}.")
