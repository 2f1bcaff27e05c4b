"""fsl show embedding: what the backbone of a metric method makes of a test episode's images, in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fsl_cli.commands.finished import Finished, demand_index, number, open_run, protocol, save, words_of_a_run
from fsl_cli.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

METHODS = ("pca", "tsne")
NAMED = 20  # classes that have a colour of their own and a line in the legend


def main(words: Sequence[str], user_dir: str | None) -> None:
    """Run the command line after `fsl show embedding`. Raises UserError."""
    given = words_of_a_run("fsl show embedding", words)
    method = given.pop("method", METHODS[0])
    if method not in METHODS:
        raise UserError(f"method={method}: type {' or '.join(f'method={each}' for each in METHODS)}.")
    index = number(given, "index", 0, 0)
    run = open_run(given, f"embedding-{method}-{index}", user_dir)
    name, algorithm = run.values["choices"]["algo"], run.experiment.learner.algorithm
    if not hasattr(algorithm, "backbone"):
        raise UserError(
            f"algo={name} has no embedding that all tasks share: its network adapts to each. fsl show embedding is for "
            "metric methods, such as algo=protonet; for this run there is fsl show steps."
        )
    demand_index(run, index)
    figure = _embedding(run, method, index)
    save(run.out, lambda path: figure.savefig(path, dpi=120, format="png"))


def _embedding(run: Finished, method: str, index: int) -> Figure:
    import torch

    from fsl_cli.commands.episode_picture import class_names
    from fsl_cli.data.datamodule import EVALUATION_SEED
    from fsl_cli.data.tasks import Batch

    algorithm: Any = run.experiment.learner.algorithm
    tasks: Any = run.experiment.episodes.tasks
    [episode] = tasks.gather(Batch(run.part, EVALUATION_SEED, [index]), torch.device("cpu"))
    (x, y), query = episode.support, episode.query
    with torch.no_grad():
        features = torch.cat([algorithm.backbone(x)[0], algorithm.backbone(query.x, x)[0]])  # (n + m, d)
        right = (algorithm.adapt(episode.support)(query.x)[0].argmax(-1) == query.y[0]).tolist()
    names = [name.replace("\n", "/") for name in class_names(tasks.data, run.part, episode.classes[0].tolist())]
    points, about = (pca if method == "pca" else tsne)(features)
    labels = torch.cat([y[0], query.y[0]]).tolist()
    title = f"{protocol(run)} episode {index}: {sum(right)} of {len(right)} right\n{about}"
    return draw(points, labels, right, names, title)


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
