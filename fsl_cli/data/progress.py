"""How far something is that takes long: nothing is shown until somebody who can show it says so."""

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
    """Let `bar` show all progress: a context of a name, the bytes that are there, and the bytes in all, if known."""
    _bar.set(bar)


def progress(name: str, done: int, total: int | None) -> AbstractContextManager[Callable[[int], Any]]:
    """While inside, what is yielded is to be called with each number of bytes that comes."""
    return _bar.get()(name, done, total)
