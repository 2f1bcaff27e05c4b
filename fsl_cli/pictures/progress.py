"""The progress of a training and of a download."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from fsl_cli.pictures.console import console


@contextmanager
def download_bar(name: str, have: int, length: int | None) -> Iterator[Any]:
    """A bar on standard error, where that is a terminal; yields what is to be called with each number of bytes."""
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(name, total=None if length is None else have + length, completed=have)
        yield lambda count: progress.advance(task, count)


class TrainingProgress:
    """A progress bar with a line for each validation; plain lines where the output is not a terminal."""

    def __init__(self, first: int, steps: int) -> None:
        """`first` meta-iterations of `steps` are done."""
        self.console = console()
        self.steps = steps
        self.bar: Progress | None = None
        self._first, self._started = first, time.monotonic()
        if self.console.is_terminal:
            words = "[cyan]{task.fields[speed]:.1f} steps/s[/]  loss {task.fields[loss]:.3f}  val {task.fields[val]}"
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn(words), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task("", total=steps, completed=first, speed=0.0, loss=0.0, val="-")
            self.bar.start()

    def trained(self, step: int, loss: float) -> None:
        """`step` meta-iterations are done, and this is the last one's loss."""
        if self.bar:
            self.bar.update(self.task, completed=step, speed=self._speed(step), loss=loss)

    def validated(self, step: int, reached: str) -> None:
        """A validation after `step` meta-iterations."""
        if self.bar:
            self.bar.update(self.task, val=reached)
        left = (self.steps - step) / max(self._speed(step), 1e-9)
        self.console.print(
            f"step {step:>6} of {self.steps}   val {reached}   {self._speed(step):.2f} steps/s   {_clock(left)} left",
            highlight=False,
        )

    def close(self) -> None:
        """Leave the terminal to others."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _speed(self, step: int) -> float:
        return (step - self._first) / max(time.monotonic() - self._started, 1e-9)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
