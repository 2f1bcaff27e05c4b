"""Pictures shown in the terminal itself, if it can show them."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Mapping
from pathlib import Path


def inline(picture: Path) -> None:
    """Show a PNG in the terminal, if it can show one."""
    if sys.stdout.isatty():
        sys.stdout.write(_escape(protocol(os.environ), picture.read_bytes()))


def protocol(environment: Mapping[str, str]) -> str:
    """The protocol by which the terminal shows pictures: kitty, iterm, or "" for none."""
    if "TMUX" in environment or environment.get("TERM", "").startswith("screen"):
        return ""  # what lies between us and the terminal does not let pictures through
    program = environment.get("TERM_PROGRAM", "")
    if "KITTY_WINDOW_ID" in environment or environment.get("TERM") == "xterm-kitty" or program == "ghostty":
        return "kitty"
    return "iterm" if program in ("iTerm.app", "WezTerm") else ""


def _escape(name: str, png: bytes) -> str:
    """What to write so that the terminal shows the picture.

    https://sw.kovidgoyal.net/kitty/graphics-protocol and https://iterm2.com/documentation-images.html
    """
    text = base64.b64encode(png).decode()
    if name == "iterm":
        return f"\033]1337;File=inline=1;size={len(png)}:{text}\a\n"
    if name != "kitty":
        return ""
    chunks = [text[start : start + 4096] for start in range(0, len(text), 4096)]  # the most it takes at a time
    first = "a=T,f=100,"  # transmit and show, a PNG
    return (
        "".join(
            f"\033_G{first if i == 0 else ''}m={int(i < len(chunks) - 1)};{chunk}\033\\"
            for i, chunk in enumerate(chunks)
        )
        + "\n"
    )
