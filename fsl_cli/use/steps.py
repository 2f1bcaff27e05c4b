"""What a run reaches after each inner step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fsl_cli.algorithms.base import TakesSteps, TrainsWithSteps
from fsl_cli.errors import UserError
from fsl_cli.pictures.steps import AfterSteps
from fsl_cli.use.opened import Finished

if TYPE_CHECKING:
    from fsl_cli.experiment.learner import Learner
    from fsl_cli.use.opened import Finished


LEAST = 10  # steps that are looked at unless told otherwise, where training took few


def ladder(upto: int) -> list[int]:
    """Every number of steps to 10, then by about a fifth more, and `upto`."""
    steps = [*range(min(upto, 10) + 1)]
    while steps[-1] < upto:
        steps.append(min(upto, steps[-1] + steps[-1] // 5))
    return steps


def after_each(run: Finished, steps: Sequence[int]) -> Iterator[AfterSteps]:
    """What a test, or a validation, with so many inner steps reaches: the number that fsl test would."""
    from fsl_cli.experiment.trainer import one_process, quiet
    from fsl_cli.stats import mean_interval

    learner, episodes = run.experiment.learner, run.experiment.episodes
    algorithm: Any = learner.algorithm
    with quiet():
        trainer = one_process(run.settings.trainer)
        for algorithm.test_steps in steps:
            evaluate = trainer.test if run.part == "test" else trainer.validate
            evaluate(learner, datamodule=episodes, verbose=False)
            value, loss = (mean_interval([row[column] for row in learner.scores]) for column in (1, 2))
            yield AfterSteps(algorithm.test_steps, *value, *loss)


def steps_of(learner: Learner, name: str) -> dict[str, int]:
    """Inner steps in training, where there are any, and in tests. Raises UserError for what takes none."""
    algorithm = learner.algorithm
    if not isinstance(algorithm, TakesSteps):
        raise UserError(
            f"algo={name} takes no gradient steps on a support set. fsl show steps is for those that do, such as "
            "algo=maml; for a metric method there is fsl show embedding."
        )
    training = {"in training": algorithm.inner_steps} if isinstance(algorithm, TrainsWithSteps) else {}
    return {**training, "in a test": algorithm.test_steps}
