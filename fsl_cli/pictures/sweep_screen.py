"""What a sweep is doing, as a table; live on a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rich.box import SIMPLE
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from fsl_cli.pictures.console import TABLE, console

STATES = {  # of a sweep's run, and their colours
    "waiting": "dim", "running": "cyan", "finished": "green", "there": "green", "pruned": "dim", "failed": "red",
    "stopped": "yellow",
}  # fmt: skip


class Row(NamedTuple):
    """A run of a sweep: what makes it differ, how far it is, and what it reached."""

    number: int
    settings: str
    state: str
    step: str = ""
    validation: str = ""
    test: str = ""


@contextmanager
def watched(rows: Callable[[], Sequence[Row]]) -> Iterator[None]:
    """While inside, a terminal shows a live table of a sweep's runs, and nothing that the runs print."""
    screen = console()
    if not screen.is_terminal:
        yield
        return
    os.environ[TABLE] = "1"
    try:
        with Live(get_renderable=lambda: sweep_table(rows()), console=screen, refresh_per_second=2, transient=True):
            yield
    finally:
        del os.environ[TABLE]


def sweep_table(rows: Sequence[Row]) -> Table:
    """A line for each run."""
    done = sum(row.state not in ("waiting", "running") for row in rows)
    table = Table("", "settings", "", "step", "validation", "test", title=f"{done} of {len(rows)} runs", box=SIMPLE)
    for row in rows:
        state = f"[{STATES[row.state]}]{row.state}[/]"
        table.add_row(str(row.number), escape(row.settings), state, row.step, row.validation, row.test)
    return table


def show_table(rows: Sequence[Row]) -> None:
    """Print what a sweep came to."""
    console().print(sweep_table(rows), highlight=False)
