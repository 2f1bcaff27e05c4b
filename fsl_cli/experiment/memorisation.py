"""Does a run read its support sets, or has it learned by heart which label each training class has?

Where labels are fixed, a network can tell training queries apart without their support set (Yin et al., ICLR 2020,
https://arxiv.org/abs/1912.03820). On training tasks whose support labels are shuffled, whoever reads them falls to
chance, and whoever has memorised the labels stays as good: so the gap between the two accuracies is 0.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as lightning
import torch

from fsl_cli.data.sampler import Sampler
from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.episodes import Examples
from fsl_cli.experiment.assemble import Experiment
from fsl_cli.experiment.judging import evaluating
from fsl_cli.stats import mean_interval

EPISODES = 200  # the first of the training


def can_be_measured(experiment: Experiment) -> bool:
    """Whether training classes have fixed labels, and the training split is at hand."""
    train = getattr(experiment.episodes.tasks, "samplers", {}).get("train")
    return train is not None and train.labels != "drawn"


def memorisation(experiment: Experiment, trainer: lightning.Trainer) -> dict[str, Any]:
    """Accuracy on training tasks, with support labels shuffled, and the gap, each with half its 95% interval."""
    columns: dict[str, list[float]] = {"accuracy": [], "shuffled": [], "gap": []}
    with evaluating(experiment.learner, trainer):
        for index in range(EPISODES):
            own, shuffled = _accuracies(experiment, index)
            for column, value in zip(columns, (own, shuffled, own - shuffled), strict=True):
                columns[column].append(value)
    found: dict[str, Any] = {"episodes": EPISODES, "chance": 1 / _way(experiment)}
    for column, values in columns.items():
        found[column], found[f"{column}_interval"] = mean_interval(values)
    return found


def _accuracies(experiment: Experiment, index: int) -> list[float]:
    """Of one training task: with its support labels, and with these shuffled."""
    learner, tasks, seed = experiment.learner, experiment.episodes.tasks, experiment.episodes.seed
    [own] = tasks.gather(Batch("train", seed, [index], plain=True), learner.device, learner.dtype)
    own = own._replace(support=own.support.labelled())
    support, query = own.support, own.query
    order = torch.tensor(Sampler.label_order(seed, "train", index, support.y.shape[1]), device=support.y.device)
    both = own, own._replace(support=Examples(support.x, support.y[:, order]))
    said = [learner.classifier(each)(query.x).argmax(-1) for each in both]
    return [float((each == query.y).double().mean()) for each in said]


def _way(experiment: Experiment) -> int:
    tasks = experiment.episodes.tasks
    assert isinstance(tasks, ImageTasks)
    way = tasks.samplers["train"].way
    assert isinstance(way, int)  # as labels are fixed
    return way
