"""Are predictions right as often as they are sure? A reliability diagram as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fsl_cli.files import replacing
from fsl_cli.pictures.lettering import save

Curve = Sequence[tuple[float, float, float]]  # of each bin: its share of the predictions, confidence, accuracy


def reliability_picture(path: Path, curves: Mapping[str, Curve]) -> None:
    """Accuracy by confidence, a panel for each of `curves`; on the diagonal, as often right as sure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(curves), 4.5), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False)
    for axis, (title, curve) in zip(axes[0], curves.items(), strict=True):
        axis.plot([0, 1], [0, 1], "--", color="0.6")
        confidence, accuracy = [each[1] for each in curve], [each[2] for each in curve]
        axis.plot(confidence, accuracy, color="tab:blue")
        axis.scatter(confidence, accuracy, [10 + 400 * each[0] for each in curve], color="tab:blue", alpha=0.6)
        axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title=title)
    with replacing(path) as temporary:
        save(figure, temporary)
