"""Vectors as read-only float32 arrays of shape (dimensions,), and their compact text form."""

import base64
import struct
import threading
from collections.abc import Sequence
from operator import countOf
from typing import TYPE_CHECKING, Any, TypeGuard

import orjson

from tribal_mcp.errors import EntryError

try:
    from simdjson import Parser
except ImportError:  # no wheel for this platform: same result, slower
    Parser = None  # type: ignore[assignment, misc]


class _PerThread(threading.local):
    """One parser per thread: creating one costs as much as reading a hundred numbers."""

    def __init__(self) -> None:
        self.parser = None if Parser is None else Parser()


_per_thread = _PerThread()

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]
else:
    Vector = Any  # many commands need no vector, and numpy takes long to import

_SMALL = float(1 << 62)  # a larger number may have been an integer beyond 64 bits
_LARGE_BYTES = 1 << 20  # a parser holds the memory that its longest text needed


def is_vector(value: object) -> TypeGuard[Vector]:
    """Whether this is a read-only float32 array, which was checked when it was created."""
    import numpy as np

    return type(value) is np.ndarray and value.dtype == np.float32 and not value.flags.writeable


def as_vector(numbers: Any) -> Vector:  # noqa: ANN401 - anything numpy reads as numbers
    """A read-only float32 array of shape (dimensions,).

    Raises:
        EntryError: it is not a list of numbers in the range of float32.
    """
    import numpy as np

    if isinstance(numbers, np.ndarray):
        if numbers.dtype.kind not in "fiu" or numbers.ndim != 1:
            raise EntryError(
                f"embedding is an array of {numbers.dtype} and shape {numbers.shape}, "
                "not a flat list of numbers"
            )
        vector: Vector = numbers
        if numbers.dtype != np.float32 or numbers.flags.writeable:
            with np.errstate(over="ignore"):
                vector = numbers.astype(np.float32)
    elif not isinstance(numbers, Sequence) or isinstance(numbers, str | bytes):
        raise EntryError(f"embedding is {kind_of(numbers)}, not a list of numbers or null")
    else:
        number_types = {float, int, np.float32, np.float64}
        # Counting floats is the cheaper check, and enough for most vectors.
        if countOf(map(type, numbers), float) != len(numbers) and not (
            set(map(type, numbers)) <= number_types
        ):
            position, bad = next(
                (i, n) for i, n in enumerate(numbers) if type(n) not in number_types
            )
            raise EntryError(f"embedding[{position}] is {kind_of(bad)}, not a number")
        try:
            vector = pack_vector(numbers)
        except OverflowError:
            raise EntryError("embedding has a number out of range for float32") from None
    if not vector.size:
        raise EntryError("embedding is an empty list; use null for a missing vector")
    # Testing the sum or the square would overflow with a warning.
    if not np.isfinite(vector).all():
        raise EntryError("embedding has NaN, Infinity or a number out of range for float32")
    vector.setflags(write=False)
    return vector


def pack_vector(numbers: Sequence[float]) -> Vector:
    """The vector of numbers that have already passed `as_vector`.

    Raises:
        OverflowError: a number is out of range for float32.
    """
    import numpy as np

    try:
        # Rounds as numpy does in a third of the time, and raises when float32 overflows.
        return np.frombuffer(struct.pack(f"{len(numbers)}f", *numbers), dtype=np.float32)
    except struct.error as error:
        raise OverflowError(str(error)) from None  # an integer out of range for any float


def read_numbers(text: bytes) -> Vector | None:
    """The vector of a JSON list of numbers.

    None if only a strict parser can decide: the list is empty, has other values, or has a number
    out of range for float32.
    """
    import numpy as np

    try:
        if (parser := _per_thread.parser) is not None:
            if len(text) > _LARGE_BYTES:
                parser = Parser()
            # To doubles first, as in every JSON parser: rounding text to float32 at once differs.
            numbers = np.frombuffer(parser.parse(text).as_buffer(of_type="d"))  # type: ignore[union-attr]
        elif b"u" in text or b"s" in text:  # null, true or false; numpy reads these as 1 and 0
            return None
        else:
            numbers = np.array(orjson.loads(text))
    except (ValueError, TypeError, RuntimeError):
        return None
    if not numbers.size or numbers.dtype != np.float64 or np.abs(numbers).max() >= _SMALL:
        return None
    vector = numbers.astype(np.float32)
    vector.setflags(write=False)
    return vector


def vector_to_base64(vector: Vector) -> str:
    """The compact text form of a vector: its little-endian float32 bytes in base64."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def vector_from_base64(text: str) -> Vector:
    """The vector of a compact text form.

    Raises:
        EntryError: the text is not a result of `vector_to_base64` for finite numbers.
    """
    import numpy as np

    try:
        data = base64.b64decode(text, validate=True)
        numbers = np.frombuffer(data, dtype="<f4")
    except ValueError:
        raise EntryError("embedding is text, but not float32 numbers in base64") from None
    if base64.b64encode(data).decode() != text:
        raise EntryError("embedding is base64 with stray bits at its end")
    return as_vector(numbers)


def same_vector(a: Vector | None, b: Vector | None) -> bool:
    """Whether both are None or have the same float32 numbers."""
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def kind_of(value: object) -> str:
    """The kind of a JSON value, for a message."""
    kinds = {
        str: "text", bool: "true or false", int: "a number", float: "a number",
        list: "a list", dict: "an object", type(None): "null",
    }  # fmt: skip
    return kinds.get(type(value), f"a {type(value).__name__}")


def cosines(vector: Vector, others: Vector) -> "npt.NDArray[np.float64]":
    """The cosine of a vector with each row of `others`, shape (n, dimensions), in float64.

    A vector of zeros has no direction; its cosine with any vector is 0.
    """
    import numpy as np

    one, many = vector.astype(np.float64), others.astype(np.float64)
    products = many @ one
    norms = np.sqrt(np.einsum("ij,ij->i", many, many)) * np.sqrt(one @ one)
    found: npt.NDArray[np.float64] = np.divide(
        products, norms, out=np.zeros_like(products), where=norms > 0
    )
    return found.clip(-1.0, 1.0)
