"""The console, which is silent where another process or a sweep's table speaks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.panel import Panel

from fsl_cli.files import first_process

PIPED = 160  # characters of a line, where it is not a terminal's


TABLE = "FSL_SWEEP_TABLE"  # set in the environment of runs whose sweep shows a live table


def console() -> Console:
    """Standard output; silent in all but the first of several processes, and where a sweep's table is in its place.

    In a file or a pipe lines are long, so that names stay whole.
    """
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED
    return Console(quiet=not first_process() or (TABLE in os.environ and sys.stdout.isatty()), width=width)


def boxed(lines: Sequence[str]) -> None:
    """Print lines, which may have rich's markup, in a frame."""
    console().print(Panel("\n".join(lines), expand=False), highlight=False)


def tell(line: str, style: str | None = None) -> None:
    """Print a line as it is and whole, to be copied."""
    console().print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def warn(line: str) -> None:
    """What the user should know before work begins, or while it goes on."""
    tell(line, "yellow")
