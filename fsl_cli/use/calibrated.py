"""The temperature for a support set: the run's own, that of an earlier fit for such a task, or of one made now."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fsl_cli.backbones.mode import Mode
from fsl_cli.errors import UserError
from fsl_cli.runs.records import Calibration, read
from fsl_cli.runs.run import Run
from fsl_cli.runs.wording import task_name
from fsl_cli.settings.parts import offline, with_norm
from fsl_cli.settings.schema import Settings

EPISODES = 100  # of a fit that somebody waits for
QUERIES = 5  # images a class of these
OWN = "the run's own"  # where one for the task was neither kept nor found


def of_support(run: Run, way: int, shots: Sequence[int]) -> tuple[Calibration | None, str]:
    """What to divide logits by for so many classes and images of each, and where that is from; None if nowhere.

    The run's own for its own task; else what `fit` has found for this one; else the run's own.
    """
    own, wanted = run.calibration, task_name(way, _shot(shots))
    found = own if own and (task_name(own.way, own.shot), own.norm) == (wanted, _norm(run.settings)) else None
    if own and found is None:
        with suppress(UserError):
            found = read(_place(run, way, shots), Calibration)
            found = found if found.step == own.step else None
    if found:
        return found, f"fitted on validation, {wanted}"
    return (own, f"{OWN}, {task_name(own.way, own.shot)}") if own else (None, "none")


def fit(run: Run, way: int, shots: Sequence[int], trust: Sequence[str] = ()) -> None:
    """Fit a temperature for such support sets, where the run's data set is at hand; nothing is downloaded for it.

    A run that was not calibrated stays so.
    """
    from fsl_cli.experiment.assemble import assemble
    from fsl_cli.experiment.calibrating import calibrate, keep
    from fsl_cli.experiment.finetuning import fine_tuning_of
    from fsl_cli.experiment.trainer import one_process, quiet
    from fsl_cli.settings.binding import demand_fit

    known = of_support(run, way, shots)[1]
    if run.calibration is None or known == f"fitted on validation, {task_name(way, _shot(shots))}":
        return
    with suppress(UserError, OSError), quiet():
        settings = demand_fit(_for(run.settings, way, shots).plain(), list(trust))
        experiment = assemble(settings, ["val"])
        experiment.learner.finetuning = fine_tuning_of(run)
        found = calibrate(run, settings, experiment, one_process(settings.trainer))
        keep(_place(run, way, shots), found)


def _for(settings: Settings, way: int, shots: Sequence[int]) -> Settings:
    """The settings of the fit's episodes."""
    norm = _norm(settings)
    query = QUERIES if settings.query == "all" else min(QUERIES, settings.query)
    task = {"way": way, "shot": _shot(shots), "query": query, "val_episodes": EPISODES}
    return settings.having(**task, norm=norm, backbone=with_norm(settings.backbone, norm), data=offline(settings.data))


def _norm(settings: Settings) -> Mode:
    """The norm in use: as trained, but support for transductive, as predictions must not depend on each other."""
    return "support" if settings.norm == "transductive" else settings.norm


def _shot(shots: Sequence[int]) -> int | list[int]:
    low, high = min(shots), max(shots)
    return low if low == high else [low, high]


def _place(run: Run, way: int, shots: Sequence[int]) -> Path:
    return run.folder / "calibrations" / task_name(way, _shot(shots))
