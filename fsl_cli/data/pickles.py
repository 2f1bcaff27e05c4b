"""Reading other people's pickles without running what is in them.

A pickle is a program: it may name any function of Python and call it. This reader knows the few names by which
NumPy arrays are stored and refuses all others. Nothing of NumPy or Python is ever handed to the pickle: an array
is rebuilt here from its type, shape and bytes, and those bytes stay in the file, mapped into memory, so that a
pickle of 10 GB opens with a few hundred MB. Pickles of Python 2, as the field's data sets are, are understood.
"""

from __future__ import annotations

import mmap
import pickle
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fsl_cli.errors import UserError

MOST = 10_000_000  # values that calls may make, besides those that are written out
MAPPED = 4096  # bytes: strings as long as this stay in the file


class Refused(Exception):
    """The pickle holds something else than data."""


class _Dtype:
    """Stands for a numpy.dtype: numbers, text and objects, no structures."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code, self.order = _text(code), "="

    def set(self, state: Any) -> None:
        self.order = _text(state[1])

    def real(self) -> Any:
        if self.code[:1] not in tuple("biufSUO") or self.order not in tuple("=<>|"):
            raise Refused(f"an array of type {self.code!r}")
        return np.dtype(object if self.code[0] == "O" else self.order.replace("|", "") + self.code)


class _Array:
    """Stands for a numpy.ndarray; an array of objects becomes a list."""

    __slots__ = ("value",)

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def set(self, state: Any) -> None:
        *_, shape, dtype, fortran, raw = state
        if dtype.real().hasobject and not isinstance(raw, list):
            raise Refused("an array of objects that is no list")
        if isinstance(raw, list):
            self.value = raw
        else:
            self.value = np.frombuffer(raw, dtype.real()).reshape(tuple(shape), order="F" if fortran else "C")


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:  # what pickle protocol 5 calls
    array = _Array()
    array.set((shape, dtype, _text(order) == "F", raw))
    return array


def _encode(text: str = "", encoding: str = "latin1") -> bytes:  # how Python 3 writes bytes for Python 2
    if encoding != "latin1":
        raise Refused(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _scalar(dtype: Any, raw: Any = b"") -> Any:  # a number of NumPy's
    return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, dtype.real())[0].item()


def _numbers(*bounds: Any) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > MOST:
        raise Refused(f"{len(numbers):,} numbers in a row")
    return list(numbers)


NUMPY = ("numpy.core", "numpy._core")  # before and since NumPy 2
ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in NUMPY},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in NUMPY},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in NUMPY},
    ("collections", "OrderedDict"): dict,
    ("collections", "defaultdict"): lambda *_: {},
    **{
        (module, name): kind
        for module in ("builtins", "__builtin__")
        for name, kind in (("list", list), ("dict", dict))
    },
    ("builtins", "range"): _numbers,
    ("__builtin__", "xrange"): _numbers,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",
    ("builtins", "bytes"): lambda: b"",
}


class _File:
    """A file whose long strings are views of it."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.view, self.readline = content, memoryview(content), content.readline

    def read(self, count: int) -> bytes | memoryview:
        if count < MAPPED:
            return self.content.read(count)
        start = self.content.tell()
        self.content.seek(count, 1)  # ValueError beyond the end
        return self.view[start : start + count]


class _Reader(pickle._Unpickler):  # the one in Python: it reads views, and its instructions can be replaced
    dispatch = dict(pickle._Unpickler.dispatch)
    left = MOST

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise Refused(f"{module}.{name}")
        return partial(self._call, ADMITTED[module, name])

    def _call(self, admitted: Callable[..., Any], *given: Any) -> Any:
        """What a call copies, a few bytes could make a thousand times."""
        made = admitted(*given)
        self.left -= len(made) if isinstance(made, list | dict | bytes) else 0
        if self.left < 0:
            raise Refused("calls that make more than the file has room for")
        return made

    def build(self) -> None:
        """Give an object its state; the original would set attributes of anything."""
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        state = stack.pop()
        if not isinstance(stack[-1], (_Dtype, _Array)):
            raise Refused(f"a state for {type(stack[-1]).__name__}")
        stack[-1].set(state)

    def skip_frame(self) -> None:
        """Frames are advice on how much to read at once, and would copy what they hold."""
        self.read(8)  # type: ignore[attr-defined]


_Reader.dispatch[pickle.BUILD[0]] = _Reader.build  # type: ignore[assignment]
_Reader.dispatch[pickle.FRAME[0]] = _Reader.skip_frame  # type: ignore[assignment]


def read_pickle(path: Path | str, content: bytes | None = None) -> Any:
    """Its dicts (keys as text), lists, tuples, text, bytes, numbers and arrays. Raises UserError when it holds more.

    Arrays are read-only views of the file, and long strings of bytes are memoryviews. Where no file is called
    `path`, as in an archive, `content` are its bytes, which go into a temporary file.
    """
    try:
        with open(path, "rb") if content is None else tempfile.TemporaryFile() as file:
            file.write(content) if content is not None else None
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = _Reader(_File(mapped), encoding="bytes")  # type: ignore[arg-type]
        reader.left += len(mapped)
        return _plain(reader.load())
    except Refused as what:
        raise UserError(
            f"{path} was not read: it holds {what}, which a data set does not need and which could run code. "
            "Get a copy from a place that you trust."
        ) from None
    except Exception as error:  # a damaged pickle makes the reader stumble in every way
        raise UserError(f"{path} cannot be read as a pickle ({error}). Copy or download it again.") from error


def _plain(value: Any, done: dict[int, Any] | None = None) -> Any:
    """The value itself, of Python's own kinds. What is in it several times is made once: `done` has it by its id."""
    done = {} if done is None else done
    if value is None or isinstance(value, np.ndarray | int | float | str | bytes | bytearray | memoryview):
        return value
    if id(value) not in done:
        done[id(value)] = _made(value, done)
    return done[id(value)]


def _made(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, _Array):
        return _plain(value.value, done)
    if isinstance(value, list | tuple):
        return type(value)(_plain(each, done) for each in value)
    if isinstance(value, dict):
        return {_text(key): _plain(each, done) for key, each in value.items()}
    raise Refused(f"an object of type {type(value).__name__}")


def _text(value: Any) -> Any:
    """Text that Python 2 wrote as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else value
