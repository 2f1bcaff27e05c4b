"""Testing a run on its data set; where it has several, on each, and what these tests come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pytorch_lightning as lightning

from fsl_cli.experiment.assemble import Experiment, each_alone
from fsl_cli.experiment.learner import Score
from fsl_cli.experiment.outputs import write_test
from fsl_cli.experiment.testing import attacked, refuse_seen_classes, result_of, run_test
from fsl_cli.runs.records import Result
from fsl_cli.runs.retest import test_name
from fsl_cli.runs.run import Run
from fsl_cli.settings.parts import sets_of
from fsl_cli.settings.schema import Settings


class _Tested(NamedTuple):
    """The test on one of the data sets."""

    result: Result
    folder: Path
    scores: list[Score]
    attacked: list[tuple[int, float]]


def run_tests(
    run: Run,
    settings: Settings,
    experiment: Experiment,
    trainer: lightning.Trainer,
    destination: Path,
    changes: list[str],
    open: bool = False,
) -> Result | None:
    """`run_test`; with several data sets, one for each, as `fsl test run=RUN data=NAME` makes it, and then their mean.

    An episode of the mean is the mean of the episodes of this number of all data sets: each counts the same. Raises
    UserError as `run_test`.
    """
    alone = each_alone(experiment, settings)
    if not alone:
        return run_test(run, settings, experiment, trainer, destination, changes, open)
    refuse_seen_classes(run, experiment.data)
    found: dict[str, _Tested] = {}
    for name, one in alone.items():
        own = settings.having(data=sets_of(settings.data)[name], choices={**settings.choices, "data": name})
        words = {"data": name, **_of_one(name, changes)}
        folder = run.folder / "tests" / "-".join([test_name(own, words), *(["open=true"] if open else [])])
        said = run_test(run, own, one, trainer, folder, [f"{key}={value}" for key, value in words.items()], open)
        if said:
            found[name] = _Tested(said, folder, list(one.learner.scores), list(one.learner.attacked))
    if not found:  # in a process that is not the first
        return None
    return _mean_of(run, settings, experiment, found, destination, changes)


def _of_one(name: str, changes: Sequence[str]) -> dict[str, str]:
    """What was changed for one of the data sets: data.root=DIR in place of data.omniglot.root=DIR."""
    given = dict(change.split("=", 1) for change in changes)
    own = {f"data.{key.split('.')[2]}": value for key, value in given.items() if key.startswith(f"data.{name}.")}
    return {**{key: value for key, value in given.items() if key.partition(".")[0] != "data"}, **own}


def _mean_of(
    run: Run,
    settings: Settings,
    experiment: Experiment,
    found: dict[str, _Tested],
    destination: Path,
    changes: list[str],
) -> Result:
    """What the tests on all data sets come to, in a folder as of any test."""
    learner, results = experiment.learner, [each.result for each in found.values()]
    learner.scores = [_mean_score(scores) for scores in zip(*(each.scores for each in found.values()), strict=True)]
    learner.attacked = _mean_pairs([each.attacked for each in found.values()])
    learner.by_instance = []
    result = replace(
        result_of(run, settings, experiment, results[0].step, changes),
        seconds=round(sum(result.seconds for result in results), 2),
        training_seconds=results[0].training_seconds,
        attacked=attacked(settings, learner),
        data_sets={
            name: {"mean": each.result.mean, "interval": each.result.interval, "test": each.folder.name}
            for name, each in found.items()
        },
    )
    write_test(destination, result, learner, names={})
    if destination == run.folder:
        run.take_result(result)
    return result


def _mean_score(scores: Sequence[Score]) -> Score:
    """Of the episodes of one number."""
    return Score(scores[0].index, fmean(each.value for each in scores), fmean(each.loss for each in scores))


def _mean_pairs(columns: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    rows: Any = zip(*columns, strict=True)
    return [(row[0][0], fmean(value for _, value in row)) for row in rows]
