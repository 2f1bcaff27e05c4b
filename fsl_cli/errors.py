"""What the user did wrong, as opposed to what we did wrong, and how to put it: what was found, what to type instead.

Names that somebody else chose are made safe for one line of text here; those who write Markdown, HTML or a CSV go on
from there.
"""

from __future__ import annotations

import shlex
import unicodedata
from typing import Any

KEPT = "\u200c\u200d\u00ad"  # joiners, which scripts and emoji are spelled with, and soft hyphens


class UserError(Exception):
    """Bad input: shown as its message alone, no traceback, exit code 2.

    The message says what is wrong, what was found, and what to type instead.
    """


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after everything worth keeping was saved; the message says how to go on.

    `code` is the exit code, as shells have it: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, message: str, code: int = 130) -> None:
        super().__init__(message)
        self.code = code


class TooShort(UserError):
    """A budget of time in which not even a step and the test fit; `enough` is one that does, as one types it: 90s."""

    def __init__(self, message: str, enough: str) -> None:
        super().__init__(message)
        self.enough = enough


class Diverged(UserError):
    """A loss or a meta-gradient became infinite or NaN in training; the run's folder is kept."""


def shown(text: str) -> str:
    """One line with nothing hidden in it.

    Characters that move the cursor, reverse the direction of writing or cannot be seen are replaced by their codes.
    Bytes of a file's name that are no text stand as <0xFF>, other characters as <U+202E>.
    """
    return "".join(_code(letter) if _hidden(letter) else letter for letter in text)


def lines(text: str) -> str:
    """`shown` for text of several lines."""
    return "\n".join(map(shown, text.split("\n")))


def _hidden(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in KEPT


def _code(letter: str) -> str:
    number = ord(letter)
    return f"<0x{number - 0xDC00:02X}>" if 0xDC80 <= number <= 0xDCFF else f"<U+{number:04X}>"


def setting(key: str, value: Any) -> str:
    """A setting as one types it: way=[5,20], download=true, root=null."""
    return f"{key}={typed(value)}"


def typed(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(typed, value))}]"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def command(*words: object) -> str:
    """A command line to show, which can be pasted into a shell: words are quoted where needed."""
    return shlex.join(map(str, words))
