"""Starting a run and going on with one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fsl_cli.errors import Diverged, UserError, command
from fsl_cli.experiment.finalize import finalize, seconds
from fsl_cli.files import disk_errors, write_json, write_text
from fsl_cli.pictures.console import warn
from fsl_cli.runs.folder import new_folder
from fsl_cli.runs.jobs import MACHINE, run_name
from fsl_cli.runs.places import are_trackers_own, sign_trackers
from fsl_cli.runs.run import Run
from fsl_cli.runs.trust import keep, trusted
from fsl_cli.settings.binding import demand_fit, demand_packages
from fsl_cli.settings.compose import Config, chosen_part
from fsl_cli.settings.own_pictures import fit_to_pictures
from fsl_cli.settings.registry import own_folder
from fsl_cli.settings.schema import Settings

TRACKED = "pytorch_lightning"  # the package that trackers are of

if TYPE_CHECKING:
    from fsl_cli.experiment.assemble import Experiment
    from fsl_cli.experiment.callbacks import Report


def start(
    config: Config,
    begun: Callable[[Run], Any] | None = None,
    report: Report | None = None,
    began: float | None = None,
) -> Run:
    """Train a new run and return it. Nothing is left behind when the settings do not work out.

    `begun` is told of the run before training; `report` as in `training.train`. The budget `time` counts from `began`,
    of time.monotonic, or from now.
    """
    from fsl_cli.experiment.budget import within
    from fsl_cli.experiment.ready import ready_experiment
    from fsl_cli.experiment.training import train

    began, deadline = time.monotonic() if began is None else began, None
    config, reasons = fit_to_pictures(config)
    settings = finalize(config)
    if reasons:
        why = command("fsl", "show", *own_folder(config.user_dir), *config.overrides)
        warn(f"Settings for {settings.data_name} by what its pictures are; why: {why}")
    experiment = ready_experiment(settings, config.overrides)
    settings = settings.having(**experiment.tested)
    if settings.time:
        left = seconds(settings.time) - (time.monotonic() - began)
        settings, deadline = within(settings, experiment, left)
        experiment = ready_experiment(settings, again=True)
        print(f"time={settings.time}: {settings.steps:,} steps, validated every {settings.val_every:,}.", flush=True)
    settings = settings.having(
        image=experiment.image, train_classes=experiment.train_classes, pretrained=experiment.pretrained
    )
    run = Run(new_folder(settings.out, run_name(settings)))
    try:
        with _written(run):
            run.begin(settings, config.overrides)
            _describe(run, experiment)
            keep(run, settings.trust)
            sign_trackers(run.folder, settings)
            if begun:
                begun(run)
            train(run, settings, experiment, [trust_word(settings.trust)], report, deadline)
    except UserError as error:
        if not isinstance(error, Diverged) and not run.last.exists() and not run.best.exists():
            shutil.rmtree(run.folder, ignore_errors=True)
        raise
    return run


@contextmanager
def _written(run: Run) -> Iterator[None]:
    """While inside, the run is ours to write. Raises UserError that says how to go on where the disk refuses."""
    try:
        with disk_errors(run), run.lock():
            yield
    except UserError as error:
        if isinstance(error.__cause__, OSError) and run.last.exists():
            raise UserError(f"{error} To go on: {command('fsl', 'train', f'resume={run}')}") from error
        raise


def _describe(run: Run, experiment: Experiment) -> None:
    """Note where the run runs, how fsl differs from its commit, and which classes each split holds."""
    from fsl_cli.data.store import SPLITS
    from fsl_cli.runs.environment import changes, environment

    write_json(run.folder / "environment.json", environment())
    if difference := changes():
        write_text(run.folder / "changes.diff", difference)
    write_json(run.folder / "classes.json", {part: experiment.data.fingerprints(part) for part in SPLITS})


def resume(run: Run, trust: list[str], trainer: str = "", again: str = "", report: Report | None = None) -> None:
    """Go on with a run from its last checkpoint, or say that it is finished.

    `trust` as in `binding.problems`; `trainer` is that of another machine. `again` is a step to run
    once more with anomaly detection instead; `report` as in `training.train`.
    """
    from fsl_cli.experiment.assemble import assemble
    from fsl_cli.experiment.replay import replay
    from fsl_cli.experiment.training import train
    from fsl_cli.runs.checkpoints import read_checkpoint

    settings, trust = _with_own_trackers(run, trust), trusted(run, trust)
    if trainer:  # precision and clipping stay the run's: they change what is learned
        own = {key: value for key, value in settings.trainer.values.items() if key not in MACHINE}
        settings = settings.having(trainer=chosen_part("trainer", trainer).having(**own))
    if again:
        demand_fit(settings.plain(), trust)
        if not again.isdecimal():
            raise UserError(f"replay={again}: must be the number of a step.")
        replay(run, settings, assemble(settings), int(again))
        return
    if run.is_finished() and "LOCAL_RANK" not in os.environ:
        print(f"{run} is finished: nothing to resume. To test it again: {command('fsl', 'test', f'run={run}')}")
        return
    demand_fit(settings.plain(), trust)
    demand_packages(settings)
    _ = run.classes  # which the test will need: raises UserError now where it is damaged
    with _written(run):
        if run.last.exists():
            read_checkpoint(run.last)  # raises UserError where Lightning would raise anything
        words = [trust_word(trust), *([f"trainer={trainer}"] if trainer else [])]
        train(run, settings, assemble(settings), words, report)


def _with_own_trackers(run: Run, trust: list[str]) -> Settings:
    """A run's settings; without its trackers, which is told, where they may be a stranger's."""
    settings = run.settings
    if TRACKED in trust:
        sign_trackers(run.folder, settings)
    if are_trackers_own(run.folder, settings):
        return settings
    again = command("fsl", "train", f"resume={run}", f"trust=[{TRACKED}]")
    warn(
        f"left out   logger={','.join(settings.logger)}: the run was not begun here, and a tracker writes and sends "
        f"where the run's config.yaml says. With it: {again}"
    )
    return settings.having(logger={})


def trust_word(trust: list[str]) -> str:
    """The word that says whom to trust."""
    return f"trust=[{','.join(trust)}]"
