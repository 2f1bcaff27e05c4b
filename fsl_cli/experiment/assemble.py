"""From a configuration to the things it describes: data set, episodes, backbone, algorithm, learner."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.backbones.norm import Mode
from fsl_cli.data.augment import Augment
from fsl_cli.data.feasible import shape_problems, without_small
from fsl_cli.data.sampler import Shape
from fsl_cli.data.sources.sinusoid import Sinusoids
from fsl_cli.data.store import DataSet
from fsl_cli.data.tasks import ImageTasks
from fsl_cli.errors import UserError
from fsl_cli.experiment.datamodule import Episodic
from fsl_cli.experiment.learner import Learner, Metric
from fsl_cli.runs.checkpoints import load_weights
from fsl_cli.runs.folder import saved_config
from fsl_cli.settings.binding import build, demand_parts_fit

Data = DataSet | Sinusoids


POINT: dict[str, Any] = {
    "channels": 1,
    "size": 1,
    "mean": [0.0],
    "std": [1.0],
}  # what a backbone sees of regression's single number


class Experiment(NamedTuple):
    learner: Learner
    episodes: Episodic
    data: Data
    image: dict[str, Any]  # what the backbone sees: channels, size, the pixels' mean and std, whether they show ink
    train_classes: int  # of the training split, turned ones counted on their own


def assemble(config: dict[str, Any], parts: Sequence[str] = ("train", "val", "test")) -> Experiment:
    """Build what a resolved configuration describes, with episodes of these splits.

    A finished run's configuration says what its backbone sees (`image`), and other data sets are brought to that.
    Raises UserError when the data set cannot be had or cannot give such episodes.
    """
    data = build(config["data"])
    train = Shape(config["train_way"], config["train_shot"], config["train_query"])
    evaluation = Shape(config["way"], config["shot"], config["query"])
    shapes = {part: train if part == "train" else evaluation for part in parts}
    if isinstance(data, DataSet):
        data = without_small(data, shapes)
    tasks, image = _image_tasks(config, data, shapes) if isinstance(data, DataSet) else (data.tasks(shapes), POINT)
    episodes = Episodic(
        tasks,
        seed=config["seed"],
        meta_batch=config["meta_batch"],
        steps=config["steps"],
        val_every=config["val_every"],
        episodes={"val": config["val_episodes"], "test": config["episodes"]},
    )
    own = len(data.splits["train"].classes) * data.splits["train"].turns if isinstance(data, DataSet) else 1
    train_classes = config.get("train_classes") or own
    teacher = trained(Path(config["teacher"])) if config.get("teacher") and "train" in parts else None
    pixels = (image["mean"], image["std"])
    built = learner(config, image["channels"], image["size"], tasks.metric, pixels, train_classes, teacher)
    return Experiment(built, episodes, data, image, train_classes)


def trained(folder: Path, trust: Sequence[str] = (), norm: Mode | None = None) -> Algorithm:
    """The algorithm of a finished run, as its best checkpoint left it, in evaluation mode; needs no data.

    `trust` are packages that its configuration may name besides ours; `norm` takes the place of the run's. Raises
    UserError when the folder holds no such run.
    """
    config = saved_config(folder)
    demand_parts_fit(config, ("algo", "backbone"), list(trust))
    if "pretrained" in config["backbone"]:
        config["backbone"]["pretrained"] = False  # the checkpoint has the weights
    if norm:
        config["norm"] = config["backbone"]["norm"] = norm
    image = config["image"]
    pixels, classes = (image["mean"], image["std"]), config.get("train_classes", 1)
    built = learner(config, image["channels"], image["size"], pixels=pixels, train_classes=classes)
    load_weights(folder / "checkpoints" / "best.ckpt", built)
    return built.algorithm.eval()


def _image_tasks(config: dict[str, Any], data: DataSet, shapes: dict[str, Shape]) -> tuple[ImageTasks, dict[str, Any]]:
    """The episodes of a data set of images, and what the backbone sees of them."""
    if found := shape_problems(data, shapes):
        raise UserError("\n".join(found))
    channels, size = data.store.images.shape[1:3]
    own = {"channels": channels, "size": size, "mean": list(data.mean), "std": list(data.std), "ink": data.ink}
    image = config.get("image") or own
    mean, std = tuple(image["mean"]), tuple(image["std"])
    if image.get("ink", data.ink) != data.ink:  # 1 - pixel takes the place of pixel
        mean, std = tuple(1 - value for value in mean), tuple(-value for value in std)
    scaled = data._replace(mean=mean, std=std)
    augmentation = build(config["augment"]) if config.get("augment") else Augment()
    tasks = ImageTasks(scaled, shapes, image["channels"], None if augmentation == Augment() else augmentation)
    return tasks, image


def learner(
    config: dict[str, Any],
    channels: int,
    size: int,
    metric: Metric = "accuracy",
    pixels: tuple[Sequence[float], Sequence[float]] | None = None,
    train_classes: int = 1,
    teacher: Algorithm | None = None,
) -> Learner:
    """The algorithm on its backbone for images of `channels` x size x size, weights drawn from the run's seed.

    `pixels` are the mean and deviation that images are scaled by; `train_classes` and `teacher` are for algorithms
    that learn to tell all classes of the training split apart, or from another run. Raises UserError when the two do
    not go together.
    """
    torch.manual_seed(config["seed"])
    backbone = build(config["backbone"], channels=channels, size=size)
    backbone.pixels = pixels
    algorithm = build(config["algo"], backbone=backbone, train_classes=train_classes, teacher=teacher)
    if config["steps"] and not any(parameter.requires_grad for parameter in algorithm.parameters()):
        raise UserError(
            "There is nothing to train: with backbone.frozen=true, this algorithm has no weights left to learn. "
            "Type steps=0 to test it as it is, backbone.frozen=false, or an algorithm with weights of its own."
        )
    if backbone.drops and getattr(algorithm, "checkpoint_inner", False):
        raise UserError(
            "algo.checkpoint_inner=true builds each step again, and a backbone that drops at random would drop others. "
            "Type backbone.drop_rate=0 (resnet12), backbone.dropout=0 (r2d2, wrn28_10) or algo.checkpoint_inner=false."
        )
    optimizer = partial(build, config["optim"])
    return Learner(
        algorithm,
        lambda parameters: optimizer(params=parameters),
        lambda outer: build(config["schedule"], optimizer=outer),
        metric,
        config["steps"],
        config["seed"],
    )
