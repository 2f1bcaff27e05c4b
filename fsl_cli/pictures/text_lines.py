"""Texts as a picture: a line for each, with its class and what it was taken for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fsl_cli.data.texts import as_text
from fsl_cli.errors import UserError, shown
from fsl_cli.pictures import lettering
from fsl_cli.pictures.marked_episode import RIGHT, WRONG

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from fsl_cli.episodes import Episodes

HIGH = 0.17  # inches of a line
WIDE = (1.6, 0.7, 7.0)  # inches of the class, of what it is, and of the text
POINTS = 8
LARGEST = 200  # inches


class Line(NamedTuple):
    """One text, or a title, which has no `kind`."""

    name: str  # of its class
    kind: str  # support, or query
    text: str
    color: str


def text_lines(lines: Sequence[Line]) -> Figure:
    """All lines, those of a class below each other. Raises UserError when the picture would be too large."""
    from matplotlib.figure import Figure

    high = HIGH * (len(lines) + 1)
    if high > LARGEST:
        raise UserError(f"The picture would be {high:.0f} inches high. Type fewer episodes, way, shot or query.")
    figure = Figure(figsize=(sum(WIDE), high))
    places = [0.1, WIDE[0], WIDE[0] + WIDE[1]]
    before = ""
    for number, line in enumerate(lines):
        y = 1 - (number + 0.7) * HIGH / high
        name = "" if line.kind and line.name == before else line.name
        before = line.name
        room = WIDE[0] - 0.2 if line.kind else sum(WIDE)
        cells = (lettering.fit(name, room, POINTS), line.kind, lettering.fit(shown(line.text), WIDE[2], POINTS))
        weight = "normal" if line.kind else "bold"
        for x, cell in zip(places, cells, strict=True):
            figure.text(x / sum(WIDE), y, cell, fontsize=POINTS, color=line.color, weight=weight, va="center")
    return figure


def marked_lines(episode: Episodes, probabilities: Tensor, names: Sequence[str], title: str) -> list[Line]:
    """One task of texts, class by class; `probabilities` (queries, way) tell what each query was taken for."""
    lines = [Line(title, "", "", "black")]
    (support, known), (query, true) = ((part.x[0].flatten(1), part.y[0].tolist()) for part in episode[:2])
    for label, name in enumerate(names):
        lines += [Line(name, "support", as_text(x), "black") for x, y in zip(support, known, strict=True) if y == label]
        for x, y, row in zip(query, true, probabilities, strict=True):
            guess = int(row.argmax())
            mark = "✓" if guess == y else f"✗ {names[guess]}"
            color = RIGHT if guess == y else WRONG
            if y == label:
                lines.append(Line(name, "query", f"{mark} {row[guess]:.0%}  {as_text(x)}", color))
    return lines
