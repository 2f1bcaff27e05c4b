"""Training a run in its folder."""

from __future__ import annotations

import math
from contextlib import ExitStack

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import EarlyStopping

from fsl_cli.data.several import ClassTasks
from fsl_cli.data.store import cache_folder
from fsl_cli.errors import Diverged, Interrupted, command
from fsl_cli.experiment.allocator import keep_memory
from fsl_cli.experiment.assemble import Experiment
from fsl_cli.experiment.budget import Deadline
from fsl_cli.experiment.calibrating import calibrate
from fsl_cli.experiment.callbacks import Prune, Record, Report, Screen, WholeFiles
from fsl_cli.experiment.features import (
    features_for_images,
    features_where_worth_it,
    train_on_them,
)
from fsl_cli.experiment.finetuning import fine_tune
from fsl_cli.experiment.fitting import are_drawn, draw
from fsl_cli.experiment.last_screen import last_screen
from fsl_cli.experiment.learner import NotFinite
from fsl_cli.experiment.processes import together
from fsl_cli.experiment.saturation import WarnOfSaturation
from fsl_cli.experiment.several_tests import run_tests
from fsl_cli.experiment.stopping import StopOnSignal, Stopped, exit_code
from fsl_cli.experiment.taking_in import parts_taken_in, take_in
from fsl_cli.experiment.tracking import Track
from fsl_cli.experiment.trainer import new_trainer, one_job, quiet
from fsl_cli.files import first_process
from fsl_cli.pictures.console import console, tell
from fsl_cli.pictures.curves import curves
from fsl_cli.runs.checkpoints import load_weights, write_weights
from fsl_cli.runs.records import Training
from fsl_cli.runs.run import Run
from fsl_cli.settings.parts import OfAlgorithm, OfOptimizer, asked
from fsl_cli.settings.schema import Settings


def train(
    run: Run,
    settings: Settings,
    experiment: Experiment,
    words: list[str],
    report: Report | None = None,
    deadline: Deadline | None = None,
) -> None:
    """Fit from the last checkpoint if there is one, then test the best; writes the run's folder.

    `settings` are the run's, or those of another machine; `words` are what the run's other processes must be told
    besides its folder; `report` is told each validation's score and says whether to stop; `deadline`
    stops it in time. Raises UserError when the trainer's settings do not work, and Interrupted after Ctrl-C or SIGTERM.
    """
    keep_memory()
    metric = experiment.learner.metric
    record = Record(run, keep_last=settings.train_on == "trainval")
    with quiet(f" To go on: {command('fsl', 'train', f'resume={run}')}"), one_job(run, words), ExitStack() as stack:
        track = Track(run, settings, record)
        prune = Prune(record, report)
        callbacks = [
            *_early_stopping(settings, metric),
            Screen(),
            WarnOfSaturation(settings, experiment),
            record,
            track,
            prune,
        ]
        callbacks += [*([deadline] if deadline else []), StopOnSignal(run, settings.val_every)]
        trainer = new_trainer(
            **settings.trainer.values, max_steps=settings.steps, callbacks=callbacks, plugins=[WholeFiles()]
        )
        stack.enter_context(together(trainer, run))
        if not settings.steps and not run.training:
            _keep_as_it_is(trainer, settings, experiment, run)
        if ended := not run.training:  # in this process
            tell(f"Training in {run}")
            _fit(trainer, settings, experiment, run)
            run = Run(trainer.strategy.broadcast(str(run)))  # where the first process has saved the best
            if trainer.is_global_zero:
                record.write(metric)
                curves(run.validations, run.folder / "curves.png")
                step, value = record.best or (0, math.nan)
                seconds = round(record.seconds, 1)
                run.end_training(Training(trainer.global_step, step, metric, value, seconds, prune.pruned))
        if deadline and deadline.passed:
            console().print(f"The time is up: training ends at step {trainer.global_step} of {settings.steps}.")
        wanted = settings.steps and settings.calibrate and metric == "accuracy" and (ended or not run.calibration)
        if wanted or settings.test:
            fine_tune(run, settings, experiment, trainer)
        if wanted and trainer.is_global_zero:
            run.take_calibration(calibrate(run, settings, experiment, trainer))
        if settings.test:
            run_tests(run, settings, experiment, trainer, run.folder, changes=[])
            if trainer.is_global_zero and metric == "mse" and are_drawn(experiment):
                draw(experiment, run.folder / "tasks.png")
        if trainer.is_global_zero:
            last_screen(run, settings, experiment.data)
            track.finish(run)


def _early_stopping(settings: Settings, metric: str) -> list[lightning.Callback]:
    """Checked after each validation; Lightning's default comes too late to be saved."""
    if not settings.patience:
        return []
    mode = "max" if metric == "accuracy" else "min"
    return [EarlyStopping(f"val_{metric}", patience=settings.patience, mode=mode, check_on_train_epoch_end=False)]


def _keep_as_it_is(trainer: lightning.Trainer, settings: Settings, experiment: Experiment, run: Run) -> None:
    """Where nothing is trained: let the method take in what it needs of training images, and keep what there is."""
    learner, episodes = experiment.learner.eval(), experiment.episodes
    if isinstance(episodes.tasks, ClassTasks):
        parts = parts_taken_in(type(learner.algorithm))
        cache = cache_folder(settings.data_cache)
        with torch.no_grad(), features_where_worth_it(learner, episodes, parts, trainer, cache):
            take_in(learner.algorithm, episodes, learner.device, learner.dtype)
    if first_process():
        write_weights(run.best, learner)
        run.end_training(Training(0, 0, learner.metric, None, 0.0))


def _fit(trainer: lightning.Trainer, settings: Settings, experiment: Experiment, run: Run) -> None:
    checkpoint = run.last if run.last.exists() else None
    learner, episodes = experiment.learner, experiment.episodes
    try:
        with ExitStack() as stack:
            if train_on_them(learner, episodes):
                if checkpoint:
                    load_weights(checkpoint, learner)
                cache = cache_folder(settings.data_cache)
                stack.enter_context(features_for_images(learner, episodes, ["train", "val"], trainer, cache))
            trainer.fit(learner, datamodule=episodes, ckpt_path=checkpoint, weights_only=True)
    except Stopped as stopped:
        go_on = command("fsl", "train", f"resume={run}")
        raise Interrupted(f"\nStopped and saved. To go on: {go_on}", exit_code(stopped.number)) from None
    except NotFinite as found:
        raise Diverged(_divergence(found, settings, run)) from None


def _divergence(found: NotFinite, settings: Settings, run: Run) -> str:
    """Which episodes it was, what to lower, what is kept, and how to look closer."""
    bad = [index for index, loss in found.losses.items() if not math.isfinite(loss)] or list(found.losses)
    rates = {
        "optim.lr": asked(settings.optim, OfOptimizer).lr,
        "algo.inner_lr": asked(settings.algo, OfAlgorithm).inner_lr,
    }
    lower = " or ".join(f"{name}={rate}" for name, rate in rates.items() if rate is not None)
    last = run.last
    kept = f"The checkpoint of the last validation is kept: {last}." if last.exists() else "No validation came first."
    return (
        f"Training diverged: {found}, in episode {', '.join(map(str, bad[:5]))}{' and others' * (len(bad) > 5)}. "
        f"Lower {lower}, or clip: trainer.gradient_clip_val=10. {kept} "
        f"To look into that step: {command('fsl', 'train', f'resume={run}', f'replay={found.step}')}"
    )
