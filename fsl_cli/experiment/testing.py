"""Testing a run's best checkpoint."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytorch_lightning as lightning

from fsl_cli import __version__
from fsl_cli.algorithms.base import PredictsDistribution
from fsl_cli.data.several import OfClasses
from fsl_cli.data.store import DataSet, cache_folder
from fsl_cli.data.tasks import Batch
from fsl_cli.errors import UserError
from fsl_cli.experiment import by_class, by_instance
from fsl_cli.experiment.assemble import Data, Experiment
from fsl_cli.experiment.calibrating import calibration_of_a_test
from fsl_cli.experiment.calibration import Judged, calibration_error, nll
from fsl_cli.experiment.datamodule import EVALUATION_SEED
from fsl_cli.experiment.features import features_where_worth_it
from fsl_cli.experiment.finetuning import fine_tune
from fsl_cli.experiment.fitting import linear_errors
from fsl_cli.experiment.inner_problem import inner_problem
from fsl_cli.experiment.judging import judge
from fsl_cli.experiment.learner import Learner
from fsl_cli.experiment.memorisation import can_be_measured, memorisation
from fsl_cli.experiment.open_test import open_results
from fsl_cli.experiment.optimizers import beside_hand_made
from fsl_cli.experiment.outputs import write_test
from fsl_cli.runs.checkpoints import load_weights, read_checkpoint
from fsl_cli.runs.records import UNFINISHED, Calibration, Result, seen
from fsl_cli.runs.run import Run
from fsl_cli.settings.schema import Settings
from fsl_cli.stats import mean_interval


def run_test(
    run: Run,
    settings: Settings,
    experiment: Experiment,
    trainer: lightning.Trainer,
    destination: Path,
    changes: list[str],
    open: bool = False,
) -> Result | None:
    """Read the test split with a run's best checkpoint; writes result.json and episodes.csv, and returns the result.

    `settings` are the run's, with what was changed for this test, which `changes` lists; `UNFINISHED` is added to them
    where training is not over; with `open`, pictures of none of an episode's classes are told apart too. None in all
    processes but the first. Raises UserError when the checkpoint does not fit, or when a class of the test was trained
    on or used for choosing the checkpoint.
    """
    refuse_seen_classes(run, experiment.data)
    seconds = run.training.seconds if run.training else read_checkpoint(run.best)["callbacks"]["Record"]["seconds"]
    fine_tune(run, settings, experiment, trainer)
    calibration, how = None, "none"
    if trainer.is_global_zero:
        calibration, how = calibration_of_a_test(run, settings, experiment, trainer, changes)
    step = load_weights(run.best, experiment.learner)
    opened = _open(settings, experiment, trainer, calibration) if open else None
    started = time.monotonic()
    cache = cache_folder(settings.data_cache)
    with features_where_worth_it(experiment.learner, experiment.episodes, ["test"], trainer, cache):
        trainer.test(experiment.learner, datamodule=experiment.episodes, verbose=False)
    if not trainer.is_global_zero:
        return None
    judged, tally = experiment.learner.judged, experiment.learner.tally
    told = experiment.learner.by_instance
    linear = linear_errors(experiment)
    names = by_class.recurring(experiment.data, settings.episodes, settings.way)
    result = replace(
        result_of(run, settings, experiment, step, changes),
        seconds=round(time.monotonic() - started, 2),
        training_seconds=round(seconds, 1),
        **_calibrated(judged, calibration, how),
        by_class=by_class.summary(by_class.by_class(tally, names)) if names else None,
        by_instance=by_instance.summary([row for _, row in experiment.learner.by_instance]) if told else None,
        best_loss=_best(experiment, settings)
        if isinstance(experiment.learner.algorithm, PredictsDistribution)
        else None,
        best_mean=linear[0] if linear else None,
        best_by_instance=linear[1] if linear and told else None,
        memorisation=memorisation(experiment, trainer) if can_be_measured(experiment) else None,
        inner_problem=inner_problem(experiment, trainer),
        optimizers=beside_hand_made(experiment),
        open=opened,
        attacked=attacked(settings, experiment.learner),
        finetuned=experiment.learner.finetuned,
    )
    write_test(destination, result, experiment.learner, names)
    if destination == run.folder:
        run.take_result(result)
    return result


def _best(experiment: Experiment, settings: Settings) -> float | None:
    """The loss of the test episodes under what draws their curves; None where nothing does, or it is not known."""
    if isinstance(experiment.data, DataSet):
        return None
    tasks: Any = experiment.episodes.tasks
    found = tasks.best(Batch("test", EVALUATION_SEED, [*range(settings.episodes)]), experiment.learner.device)
    return fmean(found) if found else None


def attacked(settings: Settings, learner: Learner) -> dict[str, Any] | None:
    """The attack, and the accuracy under it with half its 95% interval."""
    if not settings.attack or not learner.attacked:
        return None
    mean, interval = mean_interval([value for _, value in learner.attacked])
    return {"attack": settings.attack_name, **settings.attack.values, "mean": mean, "interval": interval}


def result_of(run: Run, settings: Settings, experiment: Experiment, step: int, changes: list[str]) -> Result:
    """What was tested, under which protocol, and what was reached; how long it took is not known yet."""
    data, scores = experiment.data, experiment.learner.scores
    protocol: dict[str, Any] = {**data.protocol}
    mean, interval = mean_interval([score.value for score in scores])
    return Result(
        algorithm=settings.algo_name,
        data=data.name,
        images=data.hash,
        part="test",
        **protocol,
        way=settings.way,
        shot=settings.shot,
        query=settings.query,
        episodes=settings.episodes,
        seed=settings.seed,
        norm=settings.norm,
        episode_seed=EVALUATION_SEED,
        inference=_inference(settings, experiment),
        query_balance=settings.query_balance,
        unlabelled=settings.unlabelled,
        distractors=settings.distractors,
        labelled_share=run.settings.labelled_share,
        trained_on=run.settings.data_name,
        image=experiment.image,
        checkpoint=run.best.name,
        step=step,
        metric=experiment.learner.metric,
        mean=mean,
        interval=interval,
        loss=fmean(score.loss for score in scores),
        seconds=0.0,
        training_seconds=0.0,
        changes=changes if run.training else [*changes, UNFINISHED],
        version=__version__,
        pretrained=experiment.pretrained,
        class_rows=data.class_rows_hash if isinstance(data, OfClasses) and experiment.image.class_rows else "",
        hidden_labels=_without_labels(run.settings, data),
        seen=seen(experiment.pretrained, data.part_of if isinstance(data, OfClasses) else ""),
    )


def _inference(settings: Settings, experiment: Experiment) -> str:
    """Whether the queries of an episode help to judge each other."""
    together = settings.norm == "transductive" or experiment.learner.algorithm.sees_queries
    return "transductive" if together else "inductive"


def _without_labels(settings: Settings, data: Data) -> str:
    """Of what labels were hidden, and how; those of validation choose the checkpoint where there are any."""
    if not settings.pseudo:
        return ""
    hidden = "training, validation and test" if isinstance(data, OfClasses) and data.unsorted else "training"
    return f"{hidden} ({settings.pseudo_name})"


def _open(
    settings: Settings, experiment: Experiment, trainer: lightning.Trainer, calibration: Calibration | None
) -> dict[str, Any]:
    """The test episodes again, with pictures of other classes. Raises UserError where there are none."""
    if experiment.learner.metric != "accuracy":
        raise UserError("open=true: a regression has no classes. Leave it out.")
    if experiment.learner.algorithm.sees_queries:
        raise UserError(
            f"open=true: algo={settings.algo_name} looks at all queries together, and pictures of other classes among "
            "them would change what it says of the known. Leave it out."
        )
    cache, count = cache_folder(settings.data_cache), experiment.episodes.episodes["test"]
    return open_results(judge(experiment, "test", count, trainer, cache), calibration)


def _calibrated(judged: list[Judged], calibration: Calibration | None, how: str) -> dict[str, Any]:
    """The fields of a result that say whether probabilities mean what they say."""
    if not judged:
        return {}
    found: dict[str, Any] = {"ece": calibration_error(judged)}
    if calibration:
        temperature = calibration.temperature
        found |= {"calibration": how, "logit_temperature": temperature, "loss_calibrated": nll(judged, temperature)}
        found |= {"ece_calibrated": calibration_error(judged, temperature)}
    return found


def refuse_seen_classes(run: Run, data: Data) -> None:
    """Raises UserError when a test class of `data` is one that the run was trained or validated on."""
    seen = {digest for part in ("train", "val") for digest in run.classes.get(part, {}).values()}
    tested = data.fingerprints("test")
    known = [name for name, digest in tested.items() if digest in seen]
    if known:
        raise UserError(
            f"{len(known)} of the {len(tested)} test classes, such as {known[0]}, are among those "
            f"that {run} was trained or validated on. Test it with the split of its training."
        )
