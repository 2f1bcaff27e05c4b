"""A clean end of training on Ctrl-C, SIGTERM and SIGHUP."""

from __future__ import annotations

import signal
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from fsl_cli.runs.run import Run

# Ctrl-C; a scheduler's; and that of a terminal which is closed, where the system has it
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


def exit_code(number: int) -> int:
    """The exit code that shells use: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + number


class Stopped(Exception):
    """Ctrl-C was pressed or SIGTERM came, and a checkpoint of the step that was just finished is written."""

    def __init__(self, number: int) -> None:
        self.number = number  # of the signal


class StopOnSignal(Callback):
    """The first Ctrl-C, or a scheduler's SIGTERM, lets the meta-iteration finish, saves and stops; the second stops
    at once.

    Comes after the record, which notes the losses of the step and saves at a validation.
    """

    def __init__(self, run: Run, val_every: int) -> None:
        self.run = run
        self.val_every = val_every
        self.received = 0  # the signal's number
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._give_back()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        validates = trainer.global_step % self.val_every == 0 or trainer.global_step == trainer.max_steps
        if not validates and self._asked(trainer):  # else the validation that is due comes first
            trainer.save_checkpoint(self.run.last)
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
        for other in SIGNALS[1:]:
            signal.signal(other, signal.SIG_DFL)

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
