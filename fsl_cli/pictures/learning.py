"""The learning curves of all methods in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fsl_cli.pictures import lettering

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5cc0", "#8c6d31", "#c23b6b", "#5f6b6d")
STYLES = ("-", "--", ":", "-.")
WIDE = 6.5  # inches of a panel
POINTS = 8


class Curve(NamedTuple):
    """One run."""

    name: str  # of its method: runs of one method share a colour, and a line in the legend
    points: list[tuple[float, float]]  # meta-iterations, and the value


class Panel(NamedTuple):
    title: str
    y: str
    curves: list[Curve]


def draw(panels: Sequence[Panel], out: Path, kind: str) -> None:
    """A panel for each task, all methods in it; names stand below, no two over one another."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    short = {name: lettering.fit(name, across * WIDE - 1, POINTS) for name in names}
    widest = max(lettering.width(name, POINTS) for name in short.values()) + 0.6  # with its line, and a gap
    columns = max(1, min(len(names), int(across * WIDE / widest)))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(across * WIDE, down * 3.8 + 0.18 * lines + 0.1), layout="constrained")
    handles = {}
    for axis, panel in zip(figure.subplots(down, across, squeeze=False).flat, panels, strict=False):
        for curve in panel.curves:
            number = names.index(curve.name)
            style = STYLES[number // len(COLORS) % len(STYLES)]
            color = COLORS[number % len(COLORS)]
            [handles[curve.name]] = axis.plot(*zip(*curve.points, strict=True), style, color=color, linewidth=1.4)
        axis.set(xlabel="meta-iterations", ylabel=panel.y)
        axis.set_title(lettering.fit(panel.title, WIDE - 1, 9), fontsize=9)
    for axis in figure.axes[len(panels) :]:
        axis.remove()
    shown = [handles[name] for name in names]
    figure.legend(
        shown, list(short.values()), loc="outside lower center", ncols=columns, fontsize=POINTS, frameon=False
    )
    lettering.save(figure, out, kind)
