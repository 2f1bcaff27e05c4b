"""The progress of long work. Nothing is shown until `show_with` says how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

Bar = Callable[[str, int, int | None], AbstractContextManager[Callable[[int], Any]]]


@contextmanager
def _silent(name: str, done: int, total: int | None) -> Iterator[Callable[[int], Any]]:
    yield lambda count: None


_bar: ContextVar[Bar] = ContextVar("bar", default=_silent)


def show_with(bar: Bar) -> None:
    """Let `bar` show all progress; it is called with a name, the bytes done, and the bytes in all, if known."""
    _bar.set(bar)


def progress(name: str, done: int, total: int | None) -> AbstractContextManager[Callable[[int], Any]]:
    """While inside, call what is yielded with the number of bytes that have just been done."""
    return _bar.get()(name, done, total)
