"""Accuracy by instance of a class, or error by examples seen, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from fsl_cli.files import replacing
from fsl_cli.pictures.lettering import save


def instances_picture(
    path: Path, mean: Sequence[float], interval: Sequence[float], most: float | None, accuracy: bool,
    best: Sequence[float] | None = None,
    papers: Mapping[str, Mapping[int, float]] = MappingProxyType({}),
) -> None:  # fmt: skip
    """A point for each instance with its interval; `most` is drawn as what nobody can exceed at the first.

    `papers`, by name, have points at some instances. In regression `best` is the error of the best linear estimator.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axis = figure.subplots()
    places = range(1, len(mean) + 1)
    axis.errorbar(places, mean, interval, marker="o", color="tab:blue", capsize=2)
    if most is not None:
        axis.plot([0.7, 1.3], [most, most], color="0.5")
        axis.annotate("the best guess", (1.35, most), fontsize=8, color="0.4", va="center")
    for name, shares in papers.items():
        axis.plot(list(shares), list(shares.values()), "x", color="tab:red", label=name)
    if papers:
        axis.legend(loc="lower right", fontsize=8)
    if accuracy:
        axis.set(xlabel="instance of its class", ylabel="accuracy", ylim=(0, 1.02))
    else:
        axis.set(xlabel="example", ylabel="squared error, from those before it")
        if best:
            axis.plot(places, best, "--", color="0.4", label="best linear estimator")
            axis.legend()
    with replacing(path) as temporary:
        save(figure, temporary)
