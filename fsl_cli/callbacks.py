"""What happens around training: the record of a run, its progress on the screen, a clean end on Ctrl-C and SIGTERM."""

from __future__ import annotations

import math
import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.io import TorchCheckpointIO
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fsl_cli.results import spelled, whole, write_table
from fsl_cli.stats import mean_interval

COLUMNS = ["step", "train_loss", "val_{metric}", "val_interval", "val_loss", "learning_rate"]

Report = Callable[[int, float], bool]  # (step, score of the validation: higher is better) -> whether to stop the run


def columns(metric: str) -> list[str]:
    """What stands in a row of metrics.csv."""
    return [name.format(metric=metric) for name in COLUMNS]


class Record(Callback):
    """metrics.csv and the checkpoints, written after each validation.

    Comes after early stopping, whose state is saved too. Its rows are part of every checkpoint, so a resumed run's
    metrics file is that of an uninterrupted one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[list[float]] = []
        self.losses: list[float] = []  # of the meta-iterations since the last validation
        self.best: tuple[int, float] | None = None  # step, and the validation accuracy or error there
        self.seconds = 0.0  # of training and validation, over all sessions
        self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "losses": self.losses,
            "best": self.best and list(self.best),
            "seconds": self._elapsed(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.losses, self.seconds = state["rows"], state["losses"], state["seconds"]
        self.best = state["best"] and (state["best"][0], state["best"][1])

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.seconds, self._started = self._elapsed(), 0.0

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean")))

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        scores = module.scores
        value, interval = mean_interval([score.value for score in scores])
        loss = fmean(score.loss for score in scores)
        rate = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else math.nan
        train_loss = fmean(self.losses) if self.losses else math.nan  # steps=0 only looks at what it begins with
        self.rows.append([trainer.global_step, train_loss, value, interval, loss, rate])
        self.losses = []
        if trainer.is_global_zero:  # before the checkpoint, after which nothing may be missing
            write_table(self.folder / "metrics.csv", columns(module.metric), self.rows)
        checkpoints = self.folder / "checkpoints"
        if self.best is None or (value > self.best[1] if module.metric == "accuracy" else value < self.best[1]):
            self.best = (trainer.global_step, value)
            trainer.save_checkpoint(checkpoints / "best.ckpt")
        trainer.save_checkpoint(checkpoints / "last.ckpt")

    def _elapsed(self) -> float:
        return self.seconds + (time.monotonic() - self._started if self._started else 0.0)


class Prune(Callback):
    """In a search, stops a run that falls behind the others; comes after the record, which has just saved it."""

    def __init__(self, record: Record, report: Report | None) -> None:
        self.record = record
        self.report = report
        self.pruned = False

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        step, _, value, *_ = self.record.rows[-1]
        if self.report and self.report(int(step), value if module.metric == "accuracy" else -value):
            self.pruned = trainer.global_step < trainer.max_steps
            trainer.should_stop = True


class WholeFiles(TorchCheckpointIO):
    """Checkpoints appear whole or not at all, and are read without running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())  # else a machine that goes down may keep the name and lose the content


class Stopped(Exception):
    """Ctrl-C was pressed or SIGTERM came, and a checkpoint of the step that was just finished is written."""

    def __init__(self, number: int) -> None:
        self.number = number  # of the signal


class StopOnSignal(Callback):
    """The first Ctrl-C, or a scheduler's SIGTERM, lets the meta-iteration finish, saves and stops; the second stops
    at once.

    Comes after the record, which notes the losses of the step and saves at a validation.
    """

    def __init__(self, folder: Path, val_every: int) -> None:
        self.folder = folder
        self.val_every = val_every
        self.received = 0  # the signal's number
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._give_back()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        validates = trainer.global_step % self.val_every == 0 or trainer.global_step == trainer.max_steps
        if not validates and self._asked(trainer):  # else the validation that is due comes first
            trainer.save_checkpoint(self.folder / "checkpoints" / "last.ckpt")
            raise Stopped(self.received)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self._asked(trainer):  # the record has just saved
            raise Stopped(self.received)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._give_back()

    def _asked(self, trainer: Trainer) -> bool:
        return bool(trainer.strategy.reduce_boolean_decision(bool(self.received), all=False))

    def _receive(self, number: int, frame: Any) -> None:
        self.received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Replay(Callback):
    """Looks closely at one meta-iteration: each episode's loss, then its backward pass with anomaly detection."""

    def __init__(self, step: int, console: Console) -> None:
        self.step = step
        self.console = console
        self.warned: list[warnings.WarningMessage] = []

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            for index, loss in module.losses(batch).items():
                self.console.print(f"step {self.step}  episode {index}  loss {loss:.6g}", highlight=False)
            module.stop_at_nan = False
            torch.autograd.set_detect_anomaly(True)
            self._catcher = warnings.catch_warnings(record=True)
            caught = self._catcher.__enter__()
            self.warned = self.warned if caught is None else caught
            warnings.simplefilter("always")

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if torch.is_anomaly_enabled():
            self._catcher.__exit__(None, None, None)

    def where(self) -> str:
        """The lines of code whose derivative was not finite, as torch tells them in a warning."""
        return "\n".join(str(warning.message) for warning in self.warned)


class Screen(Callback):
    """A progress bar with a line for each validation; plain lines where the output is not a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self._first, self._started = 0, time.monotonic()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._first, self._started = trainer.global_step, time.monotonic()
        if self.console.is_terminal:
            words = "[cyan]{task.fields[speed]:.1f} steps/s[/]  loss {task.fields[loss]:.3f}  val {task.fields[val]}"
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn(words), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task(
                "", total=trainer.max_steps, completed=trainer.global_step, speed=0.0, loss=0.0, val="-"
            )
            self.bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.bar:
            loss = float(outputs["loss"])
            self.bar.update(self.task, completed=trainer.global_step, speed=self._speed(trainer), loss=loss)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        reached = spelled(module.metric, *mean_interval([score.value for score in module.scores]))
        if self.bar:
            self.bar.update(self.task, val=reached)
        left = (trainer.max_steps - trainer.global_step) / max(self._speed(trainer), 1e-9)
        self.console.print(
            f"step {trainer.global_step:>6} of {trainer.max_steps}   val {reached}   "
            f"{self._speed(trainer):.2f} steps/s   {_clock(left)} left",
            highlight=False,
        )

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _speed(self, trainer: Trainer) -> float:
        return (trainer.global_step - self._first) / max(time.monotonic() - self._started, 1e-9)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
