"""Tasks of a regression as a trained algorithm fits them, for pictures; and as the best linear estimator does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from fsl_cli.algorithms.base import PredictsDistribution, TakesSteps
from fsl_cli.algorithms.sequence.order import shuffled
from fsl_cli.data.store import DataSet
from fsl_cli.data.tasks import Batch
from fsl_cli.experiment.assemble import Experiment
from fsl_cli.experiment.datamodule import EVALUATION_SEED
from fsl_cli.pictures.curves import FittedTask, fitted_tasks
from fsl_cli.pictures.planes import FittedPlane, fitted_planes

GRID = 41  # points along each variable
AT_ONCE = 64  # tasks that the best linear estimator learns


def fit_tasks(
    experiment: Experiment, steps: Sequence[int] = (0, 1, 5, 10), part: str = "test", index: Sequence[int] = (0, 1, 2)
) -> list[FittedTask]:
    """These curves, as the trained algorithm fits them after each of these numbers of gradient steps.

    An algorithm that takes no gradient steps predicts each curve once.
    """
    algorithm = experiment.learner.algorithm.eval()
    tasks: Any = experiment.episodes.tasks
    device, trained = experiment.learner.device, algorithm.test_steps if isinstance(algorithm, TakesSteps) else None
    batch = Batch(part, EVALUATION_SEED, list(index))
    alone = [tasks.gather(Batch(part, EVALUATION_SEED, [each]), device)[0].support for each in index]
    place = torch.linspace(-tasks.reach, tasks.reach, 200, device=device).unsqueeze(-1)
    truth = tasks.truth(batch, place)  # (T, 200, 1)
    found = []
    for support, curve in zip(alone, truth, strict=True):
        after, std = {}, None
        x = torch.cat([place, support.x[0, :1, 1:].expand(len(place), -1)], -1)  # with a task's code, if it has one
        for number in steps if trained is not None else (trained,):
            if number is not None and isinstance(algorithm, TakesSteps):
                algorithm.test_steps = number
            after[number] = algorithm.adapt(support)(x.unsqueeze(0)).detach().flatten().tolist()
        if isinstance(algorithm, PredictsDistribution):
            std = algorithm.distribution(support)(x.unsqueeze(0)).std.detach().flatten().tolist()
        drawn = [each.flatten().tolist() for each in (place, curve, support.x[..., 0], support.y)]
        found.append(FittedTask(drawn[0], drawn[1], drawn[2], drawn[3], after, std))
    if trained is not None and isinstance(algorithm, TakesSteps):
        algorithm.test_steps = trained
    return found


def fit_planes(experiment: Experiment, part: str = "test", index: Sequence[int] = (0, 1, 2)) -> list[FittedPlane]:
    """These functions of two variables, or images, on a grid, as the trained algorithm predicts them."""
    algorithm = experiment.learner.algorithm.eval()
    tasks: Any = experiment.episodes.tasks
    device = experiment.learner.device
    height, width = getattr(tasks, "shape", (GRID, GRID))  # of images, their own
    down, along = (torch.linspace(-tasks.reach, tasks.reach, side, device=device) for side in (height, width))
    x = torch.stack(torch.meshgrid(down, along, indexing="ij"), -1).flip(-1).flatten(0, 1)  # (H * W, 2)
    found = []
    for each in index:
        batch = Batch(part, EVALUATION_SEED, [each])
        support = tasks.gather(batch, device)[0].support
        std = None
        with torch.no_grad() if isinstance(algorithm, PredictsDistribution) else torch.enable_grad():
            if isinstance(algorithm, PredictsDistribution):
                told = algorithm.distribution(support)(x.unsqueeze(0))
                mean, std = told.mean, told.std.view(height, width).tolist()
            else:
                mean = algorithm.adapt(support)(x.unsqueeze(0))
        planes = [each.detach().view(height, width).tolist() for each in (tasks.truth(batch, x), mean)]
        found.append(FittedPlane(planes[0], planes[1], std, support.x[0].tolist(), support.y.flatten().tolist()))
    return found


def are_drawn(experiment: Experiment) -> bool:
    """Whether tasks are curves, or functions of two variables."""
    tasks: Any = experiment.episodes.tasks
    return bool(tasks.reach)


def draw(experiment: Experiment, out: Path, part: str = "test", index: Sequence[int] = (0, 1, 2)) -> None:
    """A picture of these tasks and of what is predicted."""
    if experiment.image.channels != 2:
        fitted_tasks(out, fit_tasks(experiment, part=part, index=index))
    else:
        fitted_planes(out, fit_planes(experiment, part, index))


def linear_errors(experiment: Experiment) -> tuple[float, list[float]] | None:
    """What the best linear estimator reaches on the test episodes, where tasks have one.

    Its mean squared error on the queries, and that at each place of the sequences that sequence learners are shown.
    """
    tasks: Any = experiment.episodes.tasks
    if isinstance(experiment.data, DataSet) or tasks.linear is None:
        return None
    errors, places, count = list[float](), list[torch.Tensor](), experiment.episodes.episodes["test"]
    for first in range(0, count, AT_ONCE):
        index = [*range(first, min(first + AT_ONCE, count))]
        for episodes in tasks.gather(Batch("test", EVALUATION_SEED, index), torch.device("cpu"), torch.float64):
            support, query = episodes.support, episodes.query
            errors += (tasks.linear.estimate(support, query.x) - query.y).square().mean((1, 2)).tolist()
            examples = shuffled(episodes)
            places.append((tasks.linear.sequence(examples) - examples.y).square().squeeze(-1))
    return fmean(errors), torch.cat(places).mean(0).tolist()
