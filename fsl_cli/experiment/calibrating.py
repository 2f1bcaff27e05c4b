"""What makes a run's logits probabilities, fitted on validation episodes: its temperature, and what it does not know.

Kept with the run; for other ways and shots than its own, another is fitted where the validation split is at hand.
"""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as lightning

from fsl_cli.data.store import cache_folder
from fsl_cli.experiment.assemble import Experiment
from fsl_cli.experiment.calibration import calibration_error, fit_temperature, nll
from fsl_cli.experiment.finetuning import CHOSEN_ON
from fsl_cli.experiment.judging import judge
from fsl_cli.experiment.unknowns import fit_unknown
from fsl_cli.runs.checkpoints import load_weights
from fsl_cli.runs.records import Calibration, write
from fsl_cli.runs.run import Run
from fsl_cli.runs.wording import task_name
from fsl_cli.settings.schema import Settings

# of a test: the logits are the same
SAME_TASK = ("episodes", "query", "query_balance", "calibrate", "trainer", "attack")
MOST = 200  # validation episodes: a temperature is one number


def calibrate(run: Run, settings: Settings, experiment: Experiment, trainer: lightning.Trainer) -> Calibration:
    """Fit to validation episodes of `settings`, with the weights of the run's best checkpoint. Writes nothing."""
    step = load_weights(run.best, experiment.learner)
    most = CHOSEN_ON if experiment.learner.finetuning else MOST
    count = min(most, experiment.episodes.episodes["val"])
    cache = cache_folder(settings.data_cache)
    episodes = judge(experiment, "val", count, trainer, cache)
    judged = [each.known for each in episodes]
    temperature = fit_temperature(judged)
    unknown = fit_unknown([each.sides for each in episodes], temperature)
    return Calibration(
        step=step,
        way=settings.way,
        shot=settings.shot,
        norm=settings.norm,
        episodes=count,
        temperature=temperature,
        nll=nll(judged),
        nll_calibrated=nll(judged, temperature),
        ece=calibration_error(judged),
        ece_calibrated=calibration_error(judged, temperature),
        **(unknown._asdict() if unknown else {}),
    )


def keep(folder: Path, calibration: Calibration) -> None:
    """Write it into a folder that may be new."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, calibration)


def calibration_of_a_test(
    run: Run, settings: Settings, experiment: Experiment, trainer: lightning.Trainer, changes: list[str]
) -> tuple[Calibration | None, str]:
    """What a test divides its logits by, and how that was found; None where it is not asked for, or cannot be had.

    The run's own for its own protocol; for another, one that is fitted now, where `experiment` has the validation
    split; else the run's own.
    """
    if not settings.calibrate or settings.train_on == "trainval" or experiment.learner.metric != "accuracy":
        return None, "none"
    own = run.calibration
    if own and not needs_fit(run, changes):
        return own, f"fitted on validation, {_task(own)}"
    if "val" in getattr(experiment.episodes.tasks, "samplers", {}):
        found = calibrate(run, settings, experiment, trainer)
        if not own and not _other_task(changes):  # of an earlier fsl, or stopped
            run.take_calibration(found)
        return found, f"fitted on validation, {_task(found)}"
    return (own, f"the run's own, {_task(own)}") if own else (None, "none")


def needs_fit(run: Run, changes: list[str]) -> bool:
    """Whether the run's own calibration, if it has one, was made for another task than a test with these changes."""
    return run.calibration is None or _other_task(changes)


def _other_task(changes: list[str]) -> bool:
    return any(change.partition("=")[0].split(".")[0] not in SAME_TASK for change in changes)


def _task(calibration: Calibration) -> str:
    return task_name(calibration.way, calibration.shot)
