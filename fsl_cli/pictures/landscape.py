"""The losses of one task over a plane of weights, with the paths of inner loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 1e-6  # a loss counts as this at least, as colours tell ratios


class Landscape(NamedTuple):
    """Losses on a grid; distances of weights from the start, along the way to the first end and across it."""

    along: list[float]
    across: list[float]
    support: list[list[float]]  # a row for each of `across`, a column for each of `along`
    query: list[list[float]]
    paths: dict[str, list[tuple[float, float]]]  # of each inner loop, projected: from its start to its end

    def rows(self) -> list[list[float]]:
        """along, across, support loss, query loss of each point."""
        return [
            [x, y, self.support[j][i], self.query[j][i]]
            for j, y in enumerate(self.across)
            for i, x in enumerate(self.along)
        ]


def draw(found: Landscape, title: str) -> Figure:
    """The loss on the support set and on the queries, side by side, by colour on a scale of ratios."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2, sharex=True, sharey=True), ("support", "query"), strict=True):
        values = [[max(value, LEAST) for value in row] for row in getattr(found, name)]
        low, high = (pick(value for row in values for value in row) for pick in (min, max))
        levels = [low * (max(high / low, 1.01)) ** (step / 24) for step in range(25)]
        filled = axis.contourf(found.along, found.across, values, levels, norm=LogNorm(low, levels[-1]), cmap="viridis")
        bar = figure.colorbar(filled, ax=axis, ticks=levels[::6])
        bar.ax.set_yticklabels([f"{level:.2g}" for level in levels[::6]])
        for (path, points), colour in zip(found.paths.items(), ("white", "orange"), strict=True):
            x, y = zip(*points, strict=True)
            axis.plot(x, y, "o-", color=colour, markersize=3, linewidth=1)
            axis.plot(x[-1], y[-1], "*", color=colour, markersize=12, markeredgecolor="black", label=path)
        axis.plot(0, 0, "s", color="white", markeredgecolor="black", label="start")
        axis.set(title=f"{name} loss", xlabel="distance from the start, towards the first end")
    figure.axes[0].set_ylabel("across it")
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure
