"""Several processes of one run: how they wait for each other, and what is said when one of them ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytorch_lightning as lightning
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from pytorch_lightning.strategies import DDPStrategy

from fsl_cli.errors import UserError, command
from fsl_cli.runs.run import Run

PATIENCE = timedelta(minutes=30)  # how long processes wait for each other
GRACE = 20.0  # seconds for the first process to notice by itself that another has ended
NOTICE = 2.0  # seconds until the system reports that a process has ended
TRANSPORTS = ("gloo", "nccl")  # libraries whose errors mean a lost connection


class FslDDP(DDPStrategy):
    """Lightning's DDP, without broadcasts of running statistics (the learner averages them); says what it waits for."""

    def __init__(self) -> None:
        super().__init__(broadcast_buffers=False, timeout=PATIENCE)
        self.parent = os.getppid()  # the first process, of those on its machine that it started

    def setup_distributed(self) -> None:
        """Raises UserError where the others do not come."""
        environment = self.cluster_environment
        assert environment is not None
        where = f"{environment.main_address}:{environment.main_port}"
        minutes = f"{PATIENCE.total_seconds() / 60:.3g} minutes"
        if self.num_nodes > 1 and self.local_rank == 0:
            print(f"Waiting at {where} for {self.num_nodes} machines, up to {minutes}.", file=sys.stderr, flush=True)
        try:
            super().setup_distributed()
        except RuntimeError as error:  # torch's DistError is one
            reason = (str(error).splitlines() or [""])[0][:200]
            others = self.num_nodes * self.num_processes - 1
            raise UserError(
                f"The {others} other processes of this run did not all come to {where} within {minutes} ({reason}). "
                f"trainer.num_nodes={self.num_nodes}: type the same command on each machine, with MASTER_ADDR, "
                "MASTER_PORT and its own NODE_RANK in front; or trainer.num_nodes=1."
            ) from error


@contextmanager
def together(trainer: lightning.Trainer, run: Run) -> Iterator[None]:
    """While inside, a connection that is lost means that another process of the run has ended.

    Raises UserError that says which and how to go on, in one of those that are left.
    """

    def too_late(observer: Any) -> None:
        """Lightning's observer would kill the first process at once, without a word, before it has noticed itself."""
        time.sleep(GRACE)  # it ends meanwhile, and this thread with it, unless it hangs
        who = _ended(trainer.strategy)
        print(f"fsl: {who} of the {trainer.world_size} processes of {run} has ended.", file=sys.stderr, flush=True)
        lightnings(observer)

    lightnings = _ChildProcessObserver._terminate_all
    _ChildProcessObserver._terminate_all = too_late  # type: ignore[assignment, method-assign]
    try:
        yield
    except RuntimeError as error:
        if trainer.world_size == 1 or not any(name in str(error).lower() for name in TRANSPORTS):
            raise
        who = _ended(trainer.strategy)
        if not who:
            raise SystemExit(2) from None  # another process of this machine says it
        kept = trainer.local_rank or run.last.exists()  # else the folder goes, in the first process
        go_on = (
            f"To go on: {command('fsl', 'train', f'resume={run}')}" if kept else "Nothing was saved yet: start again."
        )
        raise UserError(f"{who} of the {trainer.world_size} processes of {run} has ended. {go_on}") from error
    finally:
        _ChildProcessObserver._terminate_all = lightnings  # type: ignore[method-assign]


def _ended(strategy: Any) -> str:
    """Which process of this machine has ended, as far as this one knows; "" if another process reports it."""
    children = getattr(strategy.launcher, "procs", [])
    until = time.monotonic() + NOTICE
    while time.monotonic() < until:
        if strategy.local_rank and os.getppid() != strategy.parent:
            return "Process 0" if strategy.local_rank == 1 else ""
        for number, child in enumerate(children, 1):
            if code := child.poll():
                how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
                return f"Process {number} ({child.pid}, {how})"
        time.sleep(NOTICE / 20)
    return "" if strategy.local_rank else "One, on another machine,"
