"""Features of a test episode's images in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fsl_cli.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


NAMED = 20  # classes that have a colour of their own and a line in the legend


def pca(features: Tensor) -> tuple[Tensor, str]:
    """Features (n, d) on their two principal axes (n, 2), and the share of their variance that these hold."""
    import torch

    centred = features.double() - features.double().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    share = float(s[:2].square().sum() / s.square().sum().clamp_min(1e-30))
    return u[:, :2] * s[:2], f"PCA: these two axes hold {share:.0%} of the variance"


def tsne(features: Tensor) -> tuple[Tensor, str]:
    """Features (n, d) laid out by t-SNE (n, 2), which keeps neighbours and not distances.

    Raises UserError where scikit-learn is missing.
    """
    import torch

    try:
        from sklearn.manifold import TSNE
    except ModuleNotFoundError as error:
        raise UserError('method=tsne needs scikit-learn. Type pip install "fsl-cli[tsne]", or method=pca.') from error
    perplexity = min(30.0, (len(features) - 1) / 3)
    found = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features.double().numpy())
    return torch.from_numpy(found), f"t-SNE, perplexity {perplexity:.0f}: neighbours count, distances do not"


def draw(points: Tensor, labels: Sequence[int], right: Sequence[bool], names: Sequence[str], title: str) -> Figure:
    """A colour for each class: its support images as stars, its queries as dots, crosses where they were mistaken.

    `points` (n + m, 2) and `labels` are those of the n support images and then of the m queries, which `right` is of.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    axis = figure.subplots()
    colors = colormaps["tab10" if len(names) <= 10 else "tab20" if len(names) <= NAMED else "hsv"]
    n = len(labels) - len(right)
    kinds = ["*"] * n + ["o" if good else "x" for good in right]
    for label, name in enumerate(names):
        color = colors(label if len(names) <= NAMED else label / len(names))
        for kind, size in (("o", 25), ("x", 35), ("*", 260 if n == len(names) else 110)):
            chosen = [
                i for i, (own, mark) in enumerate(zip(labels, kinds, strict=True)) if (own, mark) == (label, kind)
            ]
            edge: dict[str, Any] = {"edgecolors": "black", "linewidths": 0.8, "label": name} if kind == "*" else {}
            across, up = points[chosen].T.numpy()
            axis.scatter(across, up, s=size, marker=kind, color=[color] * len(chosen), **edge)
    if len(names) <= NAMED:
        figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    axis.set(xticks=[], yticks=[])
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xlabel("stars: support   dots: queries   crosses: queries taken for another class", fontsize=8)
    axis.set_title(title, fontsize=9)
    return figure
