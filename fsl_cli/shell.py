"""Command lines that are shown: they can be pasted into a shell as they stand."""

from __future__ import annotations

import shlex


def command(*words: object) -> str:
    """The words as one line: those that a shell would take apart stand in quotes."""
    return shlex.join(map(str, words))
