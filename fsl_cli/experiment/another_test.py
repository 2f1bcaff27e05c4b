"""Testing a finished run once more, under its own protocol or another."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from fsl_cli.algorithms import finetuning
from fsl_cli.algorithms.attack import demand_gradient
from fsl_cli.data.tasks import Batch
from fsl_cli.errors import UserError
from fsl_cli.experiment.allocator import keep_memory
from fsl_cli.experiment.assemble import Experiment, assemble
from fsl_cli.experiment.calibrating import needs_fit
from fsl_cli.experiment.datamodule import EVALUATION_SEED
from fsl_cli.experiment.several_tests import run_tests
from fsl_cli.experiment.similarity import demand_inner_loop
from fsl_cli.experiment.trainer import one_process, quiet
from fsl_cli.runs.records import Result
from fsl_cli.runs.retest import settings_of_a_test, test_name
from fsl_cli.runs.run import Run
from fsl_cli.settings.binding import demand_one
from fsl_cli.settings.parts import sets_of
from fsl_cli.settings.schema import Settings


class AnotherTest(NamedTuple):
    result: Result
    folder: Path  # of the test: result.json and episodes.csv
    experiment: Experiment


def another_test(
    run: Run, given: dict[str, str], user_dir: str | None = None, opened: bool = False, compared: bool = False
) -> AnotherTest:
    """Test a run's best checkpoint with what is `given` in place of its settings; writes tests/NAME in its folder.

    `opened` as `open` of `run_test`; `compared`: only methods whose layers can be compared before and after they adapt.
    Raises UserError when the settings do not go together, or the test cannot be run.
    """
    settings = settings_of_a_test(run, given, user_dir)
    unknown = ["open=true"] if opened else []  # in the folder's name, beside what was changed
    keep_memory()
    destination = run.folder / "tests" / "-".join([test_name(settings, given), *unknown])
    with quiet():
        trainer = one_process(settings.trainer)
        changes = [f"{key}={value}" for key, value in given.items()]
        learned = settings.labels != "drawn" and not any(key.partition(".")[0] == "data" for key in given)
        tuned = settings.finetune > 0
        parts = [*(["train"] if learned else []), *(["val"] if tuned else [])]
        experiment = _assembled(settings, bool(sets_of(settings.data)) or needs_fit(run, changes), parts)
        settings = settings.having(**experiment.tested)
        if compared:
            demand_one(settings.data)
            demand_inner_loop(experiment.learner.algorithm, settings.algo_name)
        if experiment.learner.attack or tuned:  # never both
            [episode] = experiment.episodes.tasks.gather(Batch("test", EVALUATION_SEED, [0]), torch.device("cpu"))
            demand = finetuning.demand_gradient if tuned else demand_gradient
            demand(experiment.learner.eval().algorithm, episode, settings.algo_name)
        result = run_tests(run, settings, experiment, trainer, destination, changes, opened)
    assert result  # of the only process
    return AnotherTest(result, destination, experiment)


def _assembled(settings: Settings, fits: bool, more: list[str]) -> Experiment:
    """The experiment of a test; with validation episodes too, if a temperature must be fitted and there are any.

    And with `more` splits.
    """
    if settings.calibrate and fits:
        with suppress(UserError):  # what is wrong with the test itself is said below
            return assemble(settings, [*dict.fromkeys(("val", "test", *more))])
    return assemble(settings, ["test", *more])
