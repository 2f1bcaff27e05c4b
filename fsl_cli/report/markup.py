"""Names that somebody else chose, made safe for Markdown and LaTeX."""

from __future__ import annotations

import re

from fsl_cli.errors import shown

LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "…": r"\dots{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip


def markdown(text: str) -> str:
    """Text in Markdown, also in a table's cell: no emphasis, link, picture, code, HTML, list, mention or address."""
    plain = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", shown(text))
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    plain = re.sub(r"(?i)(://|www)(?=.)", lambda match: match[0].replace(":", "&#58;").replace("w", "&#119;", 1), plain)
    return re.sub(r"^([-+#=]|\d+[.)](?=\s|$))", lambda match: f"{match[0][:-1]}\\{match[0][-1]}", plain)


def latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in shown(text))
