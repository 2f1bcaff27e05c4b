"""A learned optimizer beside hand-made ones, on the same problems from the same starts.

Each hand-made one has the rate of a grid with the least mean loss on these very problems at the end of a test's steps,
and keeps it beyond: an advantage that the learned one has not. Momentum is Nesterov's, and what is no rate is torch's
default (Andrychowicz et al. 2016, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer, RMSprop

from fsl_cli.algorithms.l2l import L2L
from fsl_cli.algorithms.learned_optimizer.problems import Problems
from fsl_cli.data.tasks import Batch
from fsl_cli.experiment.assemble import Experiment
from fsl_cli.experiment.datamodule import EVALUATION_SEED
from fsl_cli.pictures.optimizers import Descent
from fsl_cli.stats import mean_interval

HAND_MADE: dict[str, Callable[..., Optimizer]] = {
    "SGD": SGD,
    "NAG": partial(SGD, momentum=0.9, nesterov=True),
    "RMSprop": RMSprop,
    "Adam": Adam,
}
RATES = [2.0**power for power in range(-10, 5)]
NUMBERS = 100_000  # of all problems together: larger networks are compared on fewer


def beside_hand_made(experiment: Experiment) -> dict[str, Any] | None:
    """What result.json says of a learned optimizer's test, to twice its steps; None where none was learned."""
    algorithm = experiment.learner.algorithm
    if not isinstance(algorithm, L2L):
        return None
    return summary(compare(experiment, "test", 2 * algorithm.test_steps), algorithm.test_steps)


def compare(experiment: Experiment, part: str, steps: int) -> list[Descent]:
    """The descents of the run's own optimizer, the first, and of the hand-made ones, on episodes of its test.

    All that `NUMBERS` admits, of `part`, test or val; so many steps, which may be more than a test takes.
    """
    algorithm = experiment.learner.algorithm.eval()
    assert isinstance(algorithm, L2L)
    size = sum(value.numel() for value in algorithm.net.parameters())
    count = max(1, min(experiment.episodes.episodes[part], NUMBERS // size))
    batch = Batch(part, EVALUATION_SEED, [*range(count)])
    groups = experiment.episodes.tasks.gather(batch, experiment.learner.device, experiment.learner.dtype)
    problems = [algorithm.problems(episodes.support) for episodes in groups]
    tuned = min(algorithm.test_steps, steps)
    found = [Descent("L2L", None, _losses(problems, steps, algorithm.optimizer).tolist())]
    for name, make in HAND_MADE.items():
        ends = [_losses(problems, tuned, partial(make, lr=rate))[-1].mean().nan_to_num(torch.inf) for rate in RATES]
        rate = RATES[int(torch.stack(ends).argmin())]
        found.append(Descent(name, rate, _losses(problems, steps, partial(make, lr=rate)).tolist()))
    return found


def _losses(problems: Sequence[Problems], steps: int, by: Any) -> Tensor:
    """The loss after each step of each problem, (steps + 1, T), in float64."""
    each = [torch.stack([reached.loss for reached in group.descent(steps, by)]) for group in problems]
    return torch.cat(each, 1).double()


def summary(descents: Sequence[Descent], steps: int) -> dict[str, Any]:
    """What result.json says: at a fifth of a test's steps, at half, at the end, and at twice, as far as was gone.

    The mean loss over the problems with its 95% interval; of the hand-made ones the rate, and by how much the learned
    optimizer's is less, problem by problem, likewise.
    """
    own = descents[0].losses
    at = sorted({each for each in (steps // 5, steps // 2, steps, 2 * steps) if each < len(own)})
    found: dict[str, Any] = {"problems": len(own[0]), "steps": at}
    for descent in descents:
        rows = [mean_interval(descent.losses[each]) for each in at]
        said: dict[str, Any] = {"loss": [row[0] for row in rows], "interval": [row[1] for row in rows]}
        if descent.rate is not None:
            pairs = [[b - a for a, b in zip(own[each], descent.losses[each], strict=True)] for each in at]
            less = [mean_interval(each) for each in pairs]
            said |= {"rate": descent.rate, "less": [row[0] for row in less], "less_interval": [row[1] for row in less]}
        found[descent.name] = said
    return found
