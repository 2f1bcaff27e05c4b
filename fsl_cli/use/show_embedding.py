"""fsl show embedding: what the backbone of a metric method makes of a test episode's images, in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fsl_cli.errors import UserError
from fsl_cli.use.opened import Finished, demand_index, number, open_run, protocol, save, words_of_a_run

METHODS = ("pca", "tsne")


def show(words: Sequence[str], user_dir: str | None) -> None:
    """The picture that the words after `fsl show embedding` ask for. Raises UserError."""
    given = words_of_a_run("fsl show embedding", words)
    method = given.pop("method", METHODS[0])
    if method not in METHODS:
        raise UserError(f"method={method}: type {' or '.join(f'method={each}' for each in METHODS)}.")
    index = number(given, "index", 0, 0)
    from fsl_cli.pictures import lettering

    run = open_run(given, f"embedding-{method}-{index}", user_dir)
    name, algorithm = run.settings.algo_name, run.experiment.learner.algorithm
    if algorithm.shared_backbone is None:
        raise UserError(
            f"algo={name} has no embedding that all tasks share: its network adapts to each. fsl show embedding is for "
            "metric methods, such as algo=protonet; for this run there is fsl show steps."
        )
    if run.experiment.learner.metric != "accuracy":
        raise UserError(f"{run.experiment.data.name} has no classes to tell apart. Type fsl show fit.")
    demand_index(run, index)
    figure = _embedding(run, method, index)
    save(run.out, lambda path: lettering.save(figure, path))


def _embedding(run: Finished, method: str, index: int) -> Any:  # a figure of Matplotlib
    import torch

    from fsl_cli.data.tasks import Batch
    from fsl_cli.episodes import IGNORED
    from fsl_cli.experiment.datamodule import EVALUATION_SEED
    from fsl_cli.pictures.embedding import draw, pca, tsne
    from fsl_cli.pictures.episodes import class_names

    algorithm: Any = run.experiment.learner.algorithm
    tasks: Any = run.experiment.episodes.tasks
    [episode] = tasks.gather(Batch(run.part, EVALUATION_SEED, [index]), torch.device("cpu"))
    (x, y), query = episode.support, episode.query
    known = y[0] != IGNORED
    with torch.no_grad():
        features = torch.cat([algorithm.backbone(x)[0, known], algorithm.backbone(query.x, x)[0]])  # (n + m, d)
        right = (algorithm.classifier(episode)(query.x)[0].argmax(-1) == query.y[0]).tolist()
    names = [name.replace("\n", "/") for name in class_names(tasks.data, run.part, episode.classes[0].tolist())]
    points, about = (pca if method == "pca" else tsne)(features)
    labels = torch.cat([y[0, known], query.y[0]]).tolist()
    title = f"{protocol(run)} episode {index}: {sum(right)} of {len(right)} right\n{about}"
    return draw(points, labels, right, names, title)
