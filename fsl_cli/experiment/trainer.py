"""The Trainer that every run uses, and what Lightning is kept from doing."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytorch_lightning as lightning
import torch.distributed as processes
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.exceptions import SIGTERMException

from fsl_cli.errors import Interrupted, UserError
from fsl_cli.experiment.processes import FslDDP
from fsl_cli.experiment.stopping import SIGNALS, exit_code
from fsl_cli.ranges import Count, Rate
from fsl_cli.runs.run import Run
from fsl_cli.settings.parts import Part


def new_trainer(
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto",
    devices: Count = 1,
    num_nodes: Count = 1,
    strategy: Literal["auto", "ddp"] = "auto",
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"] = "32-true",
    gradient_clip_val: Rate | None = None,
    gradient_clip_algorithm: Literal["norm", "value"] = "norm",
    max_time: str | None = None,
    deterministic: bool = False,
    **more: Any,
) -> lightning.Trainer:
    """A Trainer that leaves the record to us, and gradients on in evaluation: inner loops need them.

    `max_time`: when training stops, as days:hours:minutes:seconds; `deterministic`: operations that give the same
    numbers each time, or fail. Raises UserError when Lightning refuses the settings.
    """
    try:
        return lightning.Trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=FslDDP() if strategy == "ddp" or devices * num_nodes > 1 else strategy,
            precision=precision,
            gradient_clip_val=gradient_clip_val,
            gradient_clip_algorithm=gradient_clip_algorithm,
            max_time=max_time,
            deterministic=deterministic,
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


def one_process(trainer: Part) -> lightning.Trainer:
    """A Trainer for tests: as a run's own, but of one process."""
    return new_trainer(**trainer.having(strategy="auto", devices=1, num_nodes=1).values)


@contextmanager
def one_job(run: Run, words: list[str]) -> Iterator[None]:
    """While inside, the command line is that of this run alone, for the processes that Lightning starts.

    They would otherwise repeat a whole sweep; and what Lightning leaves in the environment would
    make the sweep's next job believe that it is one of them.
    """
    argv, environment = sys.argv, dict(os.environ)
    sys.argv = [argv[0], "train", f"resume={run.folder.resolve()}", *words]
    try:
        yield
    finally:
        if processes.is_available() and processes.is_initialized():
            processes.destroy_process_group()
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)


@contextmanager
def quiet(go_on: str = "") -> Iterator[None]:
    """While inside, Lightning is silent on hardware, tips and worker counts, and does not end the process itself.

    Raises Interrupted where it would, after Ctrl-C, SIGTERM or SIGHUP: during a test, say, or between training and
    test. `go_on` ends its message.
    """
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings(), _signals(go_on):
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        try:
            yield
        except SIGTERMException:
            raise Interrupted(f"\nStopped.{go_on}", exit_code(signal.SIGTERM)) from None
        except SystemExit as ended:
            if isinstance(ended.__context__, KeyboardInterrupt):
                raise Interrupted(f"\nStopped.{go_on}", getattr(ended.__context__, "code", 130)) from None
            raise


@contextmanager
def _signals(go_on: str) -> Iterator[None]:
    """While inside, a signal that would end the process without a word raises Interrupted."""

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted(f"\nStopped.{go_on}", exit_code(number))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
