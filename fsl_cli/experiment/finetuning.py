"""backbone.finetune: the learning rate is chosen on validation episodes, then every evaluation fine-tunes with it."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytorch_lightning as lightning

from fsl_cli.algorithms.finetuning import RATES, FineTuning, usual_changes
from fsl_cli.data.augment import Augment
from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.errors import UserError, command
from fsl_cli.experiment.assemble import Experiment
from fsl_cli.experiment.datamodule import EVALUATION_SEED
from fsl_cli.experiment.demands import NOT_HELD_OUT
from fsl_cli.experiment.judging import evaluating
from fsl_cli.pictures.console import tell
from fsl_cli.runs.checkpoints import load_weights
from fsl_cli.runs.records import Result, read
from fsl_cli.runs.run import Run
from fsl_cli.settings.binding import build
from fsl_cli.settings.schema import Settings

CHOSEN_ON = 40  # validation episodes at most: each costs as many steps as a test episode, for each rate


def fine_tune(run: Run, settings: Settings, experiment: Experiment, trainer: lightning.Trainer) -> None:
    """Where a run asks for it, let evaluations fine-tune from now on, at the rate that is best on validation.

    The learner gets the weights of the run's best checkpoint. Validation classes are those of the data set that is
    tested. Raises UserError where there are none that the run was not trained on.
    """
    learner = experiment.learner
    backbone = learner.algorithm.shared_backbone
    if backbone is None or not backbone.finetune or learner.finetuning:
        return
    tasks = experiment.episodes.tasks
    if not isinstance(tasks, ImageTasks) or "val" not in tasks.samplers:
        raise UserError(NOT_HELD_OUT)
    trained_on = set(run.classes.get("train", {}).values())
    if any(digest in trained_on for digest in experiment.data.fingerprints("val").values()):
        raise UserError(NOT_HELD_OUT)
    load_weights(run.best, learner)
    usual = FineTuning(backbone.finetune, 0.0, augmentation(settings, experiment.image.size))
    chosen: dict[str, Any] | None = None
    if trainer.is_global_zero:
        count = min(CHOSEN_ON, experiment.episodes.episodes["val"])
        tell(f"Fine-tuning: the learning rate is chosen on {count} validation episodes of {experiment.data.name}.")
        found = {rate: _accuracy(experiment, usual.at(rate), count, trainer) for rate in RATES}
        rate = max(found, key=lambda each: (found[each], -each))  # of equal ones the smallest
        said = {f"{each:g}": value for each, value in found.items()}
        chosen = {"steps": usual.steps, "rate": rate, "data": experiment.data.name, "episodes": count, "accuracy": said}
    chosen = trainer.strategy.broadcast(chosen)
    learner.finetuning, learner.finetuned = usual.at(chosen["rate"]), chosen


def fine_tuning_of(run: Run) -> FineTuning | None:
    """How a finished run's test, or a later one of its data, fine-tuned, for other support sets; None where it did not.

    Raises UserError where that is not known.
    """
    settings = run.settings
    steps = settings.finetune
    if not steps or settings.image is None:
        return None
    later = sorted((run.folder / "tests").glob(f"*/{Result.FILE}"))
    tests = [each for each in (run.result, *(read(path.parent, Result) for path in later)) if each]
    all_found = [each.finetuned for each in tests if each.finetuned and each.data == each.trained_on]
    found = next((each for each in all_found if each["steps"] == steps), None)
    if not found:
        raise UserError(
            f"{run} fine-tunes its backbone, and has no test that says at which rate. "
            f"Type {command('fsl', 'test', f'run={run}')}."
        )
    return FineTuning(found["steps"], found["rate"], augmentation(settings, settings.image.size))


def augmentation(settings: Settings, size: int) -> Augment:
    """How support images of so many pixels a side are changed: as the run's training images, where these are."""
    typed = build(settings.augment) if settings.augment else Augment()
    return usual_changes(size) if typed == Augment() else typed


def _accuracy(experiment: Experiment, tuning: FineTuning, count: int, trainer: lightning.Trainer) -> float:
    """The mean over the first validation episodes."""
    learner, scores = experiment.learner, []
    with evaluating(learner, trainer):
        for index in range(count):
            batch = Batch("val", EVALUATION_SEED, [index])
            [episode] = experiment.episodes.tasks.gather(batch, learner.device, learner.dtype)
            said = tuning.classifier(learner.algorithm, episode)(episode.query.x).argmax(-1)
            scores.append(float((said == episode.query.y).double().mean()))
    return fmean(scores)
