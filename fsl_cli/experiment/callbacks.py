"""What happens around training: the record of a run, its checkpoints, its progress on the screen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.io import TorchCheckpointIO

from fsl_cli.files import write_table
from fsl_cli.pictures.progress import TrainingProgress
from fsl_cli.runs.checkpoints import write_torch
from fsl_cli.runs.run import Run
from fsl_cli.runs.wording import score_text
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

    def __init__(self, run: Run, keep_last: bool = False) -> None:
        self.run = run
        self.keep_last = keep_last  # as the best, where validation classes were trained on
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

    def write(self, metric: str) -> None:
        """metrics.csv, whatever became of it since a checkpoint was saved."""
        write_table(self.run.metrics, columns(metric), self.rows)

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
            self.write(module.metric)
        better = self.best is None or (value > self.best[1] if module.metric == "accuracy" else value < self.best[1])
        if better or self.keep_last:
            self.best = (trainer.global_step, value)
            trainer.save_checkpoint(self.run.best)
        trainer.save_checkpoint(self.run.last)

    def _elapsed(self) -> float:
        return self.seconds + (time.monotonic() - self._started if self._started else 0.0)


class Prune(Callback):
    """In a search, stops a run that falls behind the others. Comes after the record, which has just saved it."""

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
        write_torch(path, checkpoint)


class Screen(Callback):
    """Shows the progress of training, and of a look at the validation episodes alone."""

    def __init__(self) -> None:
        self.progress: TrainingProgress | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.progress = TrainingProgress(trainer.global_step, trainer.max_steps)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.progress:
            self.progress.trained(trainer.global_step, float(outputs["loss"]))

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        shown = self.progress or TrainingProgress(trainer.global_step, trainer.max_steps)
        shown.validated(
            trainer.global_step, score_text(module.metric, *mean_interval([score.value for score in module.scores]))
        )
        if not self.progress:
            shown.close()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.progress:
            self.progress.close()
