"""Training a run in its folder."""

from __future__ import annotations

import math
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import EarlyStopping

from fsl_cli.data.store import cache_folder
from fsl_cli.errors import Diverged, Interrupted
from fsl_cli.experiment.allocator import keep_memory
from fsl_cli.experiment.assemble import Experiment
from fsl_cli.experiment.callbacks import Prune, Record, Report, Screen, WholeFiles
from fsl_cli.experiment.features import augmented, features_for_images, frozen, possible
from fsl_cli.experiment.learner import NotFinite
from fsl_cli.experiment.stopping import StopOnSignal, Stopped
from fsl_cli.experiment.testing import fit_tasks, run_test
from fsl_cli.experiment.tracking import Track
from fsl_cli.experiment.trainer import new_trainer, one_job, quiet
from fsl_cli.files import write_json
from fsl_cli.pictures.console import console
from fsl_cli.pictures.curves import curves, fitted_tasks
from fsl_cli.pictures.run_screen import last_screen
from fsl_cli.runs.checkpoints import load_weights


def train(
    folder: Path, values: dict[str, Any], experiment: Experiment, words: list[str], report: Report | None = None
) -> None:
    """Fit from the last checkpoint if there is one, then test the best; writes the run's folder.

    `words` are what the run's other processes must be told besides its folder; `report` is told each validation's
    score and says whether to stop. Raises UserError when the trainer's settings do not work, and Interrupted after
    Ctrl-C or SIGTERM.
    """
    keep_memory()
    metric = experiment.learner.metric
    record = Record(folder)
    patience = []
    if values["patience"]:  # checked after each validation; Lightning's default comes too late to be saved
        mode = "max" if metric == "accuracy" else "min"
        settings = {"patience": values["patience"], "mode": mode, "check_on_train_epoch_end": False}
        patience = [EarlyStopping(f"val_{metric}", **settings)]
    with quiet(), one_job(folder, words):
        track = Track(folder, values, record)
        prune = Prune(record, report)
        callbacks = [*patience, Screen(), record, track, prune, StopOnSignal(folder, values["val_every"])]
        trainer = new_trainer(values["trainer"], max_steps=values["steps"], callbacks=callbacks, plugins=[WholeFiles()])
        if not (folder / "training.json").exists():
            console().print(f"Training in {folder}", highlight=False, soft_wrap=True)
            _fit(trainer, values, experiment, folder)
            folder = Path(trainer.strategy.broadcast(str(folder)))  # where the first process has saved the best
            if trainer.is_global_zero:
                curves(folder)
                step, value = record.best or (0, math.nan)
                summary = {"steps": trainer.global_step, "best_step": step, "metric": metric, "best_value": value}
                ended = {"seconds": round(record.seconds, 1), **({"pruned": True} if prune.pruned else {})}
                write_json(folder / "training.json", summary | ended)
        if values["test"]:
            run_test(folder, values, experiment, trainer, folder, changes=[])
            if trainer.is_global_zero and metric == "mse" and hasattr(experiment.learner.algorithm, "test_steps"):
                fitted_tasks(folder / "tasks.png", fit_tasks(experiment))
        if trainer.is_global_zero:
            last_screen(folder, values["test"])
            track.finish()


def _fit(trainer: lightning.Trainer, values: dict[str, Any], experiment: Experiment, folder: Path) -> None:
    last = folder / "checkpoints" / "last.ckpt"
    checkpoint = str(last) if last.exists() else None
    learner, episodes = experiment.learner, experiment.episodes
    try:
        with ExitStack() as stack:
            if possible(learner) and frozen(learner) and not augmented(episodes):
                if checkpoint:
                    load_weights(last, learner)
                cache = cache_folder(values["data"].get("cache"))
                stack.enter_context(features_for_images(learner, episodes, ["train", "val"], trainer, cache))
            if values["steps"]:
                trainer.fit(learner, datamodule=episodes, ckpt_path=checkpoint, weights_only=True)
            else:
                trainer.validate(learner, datamodule=episodes, verbose=False)
    except Stopped as stopped:
        code = 143 if stopped.number == signal.SIGTERM else 130
        raise Interrupted(f"\nStopped and saved. To go on: fsl train resume={folder}", code) from None
    except NotFinite as found:
        bad = [index for index, loss in found.losses.items() if not math.isfinite(loss)] or list(found.losses)
        kept = (
            f"The checkpoint of the last validation is kept: {last}." if last.exists() else "No validation came first."
        )
        raise Diverged(
            f"Training diverged: {found}, in episode {', '.join(map(str, bad[:5]))}{' and others' * (len(bad) > 5)}. "
            f"Lower {_what_to_lower(values)}, or clip: trainer.gradient_clip_val=10. {kept} "
            f"To look into that step: fsl train resume={folder} replay={found.step}"
        ) from None


def _what_to_lower(values: dict[str, Any]) -> str:
    rates = {"optim.lr": values["optim"].get("lr"), "algo.inner_lr": values["algo"].get("inner_lr")}
    return " or ".join(f"{name}={rate}" for name, rate in rates.items() if rate is not None)
