"""Training a run in its folder, and what every Trainer of ours has in common."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
import torch.distributed as processes
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import SIGTERMException

from fsl_cli.allocator import keep_memory
from fsl_cli.assemble import Experiment
from fsl_cli.callbacks import Prune, Record, Replay, Report, Screen, StopOnSignal, Stopped, WholeFiles
from fsl_cli.checkpoints import load_weights, read_checkpoint
from fsl_cli.data.store import cache_folder
from fsl_cli.errors import Diverged, Interrupted, UserError
from fsl_cli.features import augmented, features_for_images, frozen, possible
from fsl_cli.learner import NotFinite
from fsl_cli.results import write_json
from fsl_cli.screen import console, curves, fitted_tasks, last_screen
from fsl_cli.testing import fit_tasks, run_test
from fsl_cli.tracking import Track


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
    with tamed(), one_job(folder, words):
        track = Track(folder, values, record)
        prune = Prune(record, report)
        callbacks = [*patience, Screen(console()), record, track, prune, StopOnSignal(folder, values["val_every"])]
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


def replay(folder: Path, values: dict[str, Any], experiment: Experiment, step: int) -> None:
    """Run meta-iteration `step` of a run again, with anomaly detection, and print what is found; writes nothing.

    Starts from the latest checkpoint before it. Raises UserError when the run ends earlier.
    """
    if not 0 <= step < values["steps"]:
        raise UserError(f"replay={step}: the run has the steps 0 to {values['steps'] - 1}.")
    checkpoints = [folder / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")]
    start = next((path for path in checkpoints if path.exists() and read_checkpoint(path)["global_step"] <= step), None)
    with tamed():
        watch = Replay(step, console())
        trainer = new_trainer(values["trainer"], max_steps=step + 1, limit_val_batches=0, callbacks=[watch])
        try:
            trainer.fit(experiment.learner, datamodule=experiment.episodes, ckpt_path=start, weights_only=True)
        except RuntimeError as error:
            console().print(f"Anomaly: {error}\n{watch.where()}", highlight=False, soft_wrap=True)
        else:
            console().print(f"Step {step} went through with finite numbers.", highlight=False)
        finally:
            torch.autograd.set_detect_anomaly(False)


def new_trainer(settings: dict[str, Any], **more: Any) -> lightning.Trainer:
    """A Trainer that leaves the record to us, and gradients on in evaluation: inner loops need them.

    Raises UserError when Lightning refuses the settings.
    """
    strategy = settings["strategy"]
    if strategy == "ddp":
        strategy = DDPStrategy(broadcast_buffers=False)  # the learner averages them
    try:
        return lightning.Trainer(
            **{**settings, "strategy": strategy},
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            inference_mode=False,
            use_distributed_sampler=False,
            max_epochs=-1,
            **more,
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())} See fsl ls trainer.") from error


@contextmanager
def one_job(folder: Path, words: list[str]) -> Iterator[None]:
    """While inside, the command line is that of this run alone, for the processes that Lightning starts.

    They would otherwise repeat a whole sweep; and what Lightning leaves in the environment would
    make the sweep's next job believe that it is one of them.
    """
    argv, environment = sys.argv, dict(os.environ)
    sys.argv = [argv[0], "train", f"resume={folder.resolve()}", *words]
    try:
        yield
    finally:
        if processes.is_available() and processes.is_initialized():
            processes.destroy_process_group()
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)


@contextmanager
def tamed() -> Iterator[None]:
    """While inside, Lightning is silent on hardware, tips and worker counts, and does not end the process itself.

    Raises Interrupted where it would, after Ctrl-C or SIGTERM: during a test, say.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        try:
            yield
        except SIGTERMException:
            raise Interrupted("\nStopped.", 143) from None
        except SystemExit as ended:
            if isinstance(ended.__context__, KeyboardInterrupt):
                raise Interrupted("\nStopped.") from None
            raise
