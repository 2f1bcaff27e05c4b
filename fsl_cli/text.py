"""Names that somebody else chose, made safe for what they are written into; for Matplotlib: pictures/lettering.py."""

from __future__ import annotations

import re
import shlex
import unicodedata
from html import escape
from typing import Any

KEPT = "\u200c\u200d\u00ad"  # joiners, which scripts and emoji are spelled with, and soft hyphens
FORMULA = tuple("=+-@\t\r＝＋－＠")  # a cell that begins so is computed by spreadsheets
LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "…": r"\dots{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip


def shown(text: str) -> str:
    """One line as it is: what moves the cursor, turns the direction of writing or cannot be seen stands as its code.

    Bytes of a file's name that are no text stand as <0xFF>, other characters as <U+202E>.
    """
    return "".join(_code(letter) if _hidden(letter) else letter for letter in text)


def lines(text: str) -> str:
    """The same for text of several lines, which stay lines."""
    return "\n".join(map(shown, text.split("\n")))


def _hidden(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in KEPT


def _code(letter: str) -> str:
    number = ord(letter)
    return f"<0x{number - 0xDC00:02X}>" if 0xDC80 <= number <= 0xDCFF else f"<U+{number:04X}>"


def csv_cell(value: object) -> object:
    """A cell: text is one line, and never a formula (an apostrophe before it tells spreadsheets that it is text)."""
    if not isinstance(value, str):
        return value
    plain = shown(value)
    return f"'{plain}" if value.startswith(FORMULA) and not _number(value) else plain


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and text == text.strip()


def html(text: str) -> str:
    return escape(shown(text))


def markdown(text: str) -> str:
    """Text in Markdown, also in a table's cell: no emphasis, link, picture, code, HTML, list, mention or address."""
    plain = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", shown(text))
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    plain = re.sub(r"(?i)(://|www)(?=.)", lambda match: match[0].replace(":", "&#58;").replace("w", "&#119;", 1), plain)
    return re.sub(r"^([-+#=]|\d+[.)](?=\s|$))", lambda match: f"{match[0][:-1]}\\{match[0][-1]}", plain)


def latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in shown(text))


def setting(key: str, value: Any) -> str:
    """A setting as one types it: way=[5,20], download=true, root=null."""
    return f"{key}={typed(value)}"


def typed(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(typed, value))}]"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def command(*words: object) -> str:
    """A command line that is shown and can be pasted: what a shell would take apart stands in quotes."""
    return shlex.join(map(str, words))
