"""Does the inner loop of implicit MAML arrive? Its meta-gradient is that of a minimum (Rajeswaran et al. 2019)."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as lightning

from fsl_cli.algorithms.imaml import IMAML
from fsl_cli.data.tasks import Batch
from fsl_cli.experiment.assemble import Experiment
from fsl_cli.experiment.datamodule import EVALUATION_SEED
from fsl_cli.experiment.judging import evaluating
from fsl_cli.stats import mean_interval

EPISODES = 20  # the first of the test


def inner_problem(experiment: Experiment, trainer: lightning.Trainer) -> dict[str, Any] | None:
    """What result.json says of the objective's gradient after the steps of training and test; None of other methods.

    As a share of its length at the start, the mean over some test episodes, with half its 95% interval.
    """
    algorithm = experiment.learner.algorithm
    if not isinstance(algorithm, IMAML):
        return None
    count = min(EPISODES, experiment.episodes.episodes["test"])
    batch = Batch("test", EVALUATION_SEED, [*range(count)])
    steps = sorted({algorithm.inner_steps, algorithm.test_steps})
    found: dict[str, Any] = {"episodes": count, "steps": steps, "left": [], "interval": []}
    with evaluating(experiment.learner, trainer):
        groups = experiment.episodes.tasks.gather(batch, experiment.learner.device, experiment.learner.dtype)
        for each in steps:
            left = [value for episodes in groups for value in algorithm.unsolved(episodes.support, each).tolist()]
            for name, value in zip(("left", "interval"), mean_interval(left), strict=True):
                found[name].append(value)
    return found
