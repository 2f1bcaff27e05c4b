"""Loss against step of a learned optimizer and of hand-made ones (Andrychowicz et al. 2016, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Descent(NamedTuple):
    """How an optimizer went down."""

    name: str
    rate: float | None  # of a hand-made one
    losses: list[list[float]]  # after 0, 1, 2, ... steps, of each problem

    @property
    def means(self) -> list[float]:
        """Over the problems."""
        return [fmean(each) for each in self.losses]


def draw(descents: Sequence[Descent], trained: int, title: str) -> Figure:
    """The means on a logarithmic axis; a line where training ended."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axis = figure.subplots()
    for descent in descents:
        label = descent.name if descent.rate is None else f"{descent.name}, rate {descent.rate:.3g}"
        style = "-" if descent.rate is None else "--"
        axis.plot(descent.means, style, linewidth=2 if descent.rate is None else 1.2, label=label)
    if trained < len(descents[0].losses) - 1:
        axis.axvline(trained, color="black", linestyle=":", linewidth=1, label=f"{trained} steps in training")
    axis.set(xlabel="step", ylabel=f"loss, mean of {len(descents[0].losses[0])} problems", yscale="log")
    axis.yaxis.set_major_formatter("{x:g}")  # no mathematics is drawn: see lettering
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_title(title, fontsize=10)
    axis.legend(fontsize=8)
    return figure
