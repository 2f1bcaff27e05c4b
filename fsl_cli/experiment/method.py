"""From settings to a learner: the algorithm on its backbone, with first weights or a finished run's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.backbones.base import Backbone
from fsl_cli.backbones.mode import Mode
from fsl_cli.episodes import Metric
from fsl_cli.errors import UserError
from fsl_cli.experiment.learner import Learner
from fsl_cli.runs.checkpoints import load_weights
from fsl_cli.runs.run import Run
from fsl_cli.runs.trust import trusted
from fsl_cli.settings.binding import build, class_of, demand_parts, without_weights
from fsl_cli.settings.schema import Image, Settings

# What takes them
ITEMS = {
    "images": "backbone=conv4",
    "texts": "backbone=chars",
    "points": "backbone=mlp",
    "embeddings": "backbone=identity",
    "characters": "backbone=causal_chars",
}
METRICS: dict[str, Metric] = {"points": "mse", "characters": "bits"}  # of tasks of other items: accuracy


def learner(
    settings: Settings,
    image: Image,
    metric: Metric = "accuracy",
    train_classes: int = 1,
    teacher: Algorithm | None = None,
) -> Learner:
    """The algorithm on its backbone for such images, weights drawn from the run's seed.

    `train_classes` and `teacher` are for algorithms that learn to tell all classes of the training split apart, or
    from another run. Raises UserError when the two do not go together.
    """
    torch.manual_seed(settings.seed)
    takes = class_of(settings.backbone, Backbone).takes
    if image.items not in takes:
        raise UserError(
            f"backbone={settings.backbone_name} takes {' or '.join(takes)}; {settings.data_choice} has "
            f"{image.items}. Type {ITEMS[image.items]}."
        )
    backbone = build(settings.backbone, channels=image.channels, size=image.size)
    backbone.pixels = (image.mean, image.std)
    row_width = image.class_rows or (backbone.out_features if backbone.of_names else 0)
    if not row_width and class_of(settings.algo, Algorithm).reads_class_rows:
        raise UserError(
            f"algo={settings.algo_name} reads class rows, and backbone={settings.backbone_name} has no text tower that "
            "makes them of names. Type backbone=openclip backbone.tag=…, or a run of data=embeddings that has them."
        )
    algorithm = build(
        settings.algo, backbone=backbone, train_classes=train_classes, teacher=teacher, regression=metric == "mse",
        row_width=row_width,
    )  # fmt: skip
    if settings.steps and not any(parameter.requires_grad for parameter in algorithm.parameters()):
        raise UserError(
            "There is nothing to train: the backbone has no weights or keeps them, and this algorithm has none of its "
            "own. Type steps=0 to test it as it is, backbone.frozen=false where it says true, backbone=mlp on "
            "embeddings, or an algorithm with weights of its own."
        )
    if backbone.drops and algorithm.checkpoint_inner:
        raise UserError(
            "algo.checkpoint_inner=true builds each step again, and a backbone that drops at random would drop others. "
            "Type backbone.drop_rate=0 (resnet12), backbone.dropout=0 (r2d2, wrn28_10) or algo.checkpoint_inner=false."
        )
    optimizer = partial(build, settings.optim)
    return Learner(
        algorithm,
        lambda parameters: optimizer(params=parameters),
        lambda outer: build(settings.schedule, optimizer=outer),
        metric,
        settings.steps,
        settings.seed,
    )


def trained(run: Run, trust: Sequence[str] = (), norm: Mode | None = None) -> Algorithm:
    """The algorithm of a finished run, as its best checkpoint left it, in evaluation mode; needs no data.

    `trust` are packages that its configuration may name besides ours; `norm` takes the place of the run's. Raises
    UserError when the folder holds no such run.
    """
    settings = run.settings
    demand_parts(settings, ("algo", "backbone"), trusted(run, trust))
    image = settings.image
    if image is None:
        raise UserError(f"{run.folder / 'config.yaml'} does not say what images the run sees. Is it of another fsl?")
    settings = without_weights(settings)
    if norm:
        settings = settings.having(norm=norm, backbone=settings.backbone.having(norm=norm))
    metric = METRICS.get(image.items, "accuracy")
    built = learner(settings, image, metric, settings.train_classes or 1)
    load_weights(run.best, built)
    return built.algorithm.eval()
