"""What every Trainer of ours has in common, and what Lightning is kept from."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch.distributed as processes
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import SIGTERMException

from fsl_cli.errors import Interrupted, UserError


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
def quiet() -> Iterator[None]:
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
