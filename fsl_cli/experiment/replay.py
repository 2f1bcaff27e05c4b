"""One meta-iteration of a run once more, looked at closely: fsl train resume=RUN replay=STEP."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import Experiment
from fsl_cli.experiment.trainer import new_trainer, quiet
from fsl_cli.pictures.console import console
from fsl_cli.runs.checkpoints import read_checkpoint
from fsl_cli.runs.run import Run
from fsl_cli.settings.schema import Settings


def replay(run: Run, settings: Settings, experiment: Experiment, step: int) -> None:
    """Run meta-iteration `step` of a run again, with anomaly detection, and print what is found; writes nothing.

    Starts from the latest checkpoint before it. Raises UserError when the run ends earlier.
    """
    if not 0 <= step < settings.steps:
        raise UserError(f"replay={step}: the run has the steps 0 to {settings.steps - 1}.")
    checkpoints = [run.last, run.best]
    start = next((path for path in checkpoints if path.exists() and read_checkpoint(path)["global_step"] <= step), None)
    with quiet():
        watch = Replay(step)
        trainer = new_trainer(**settings.trainer.values, max_steps=step + 1, limit_val_batches=0, callbacks=[watch])
        try:
            trainer.fit(experiment.learner, datamodule=experiment.episodes, ckpt_path=start, weights_only=True)
        except RuntimeError as error:
            console().print(f"Anomaly: {error}\n{watch.where()}", highlight=False, soft_wrap=True)
        else:
            console().print(f"Step {step} went through with finite numbers.", highlight=False)
        finally:
            torch.autograd.set_detect_anomaly(False)


class Replay(Callback):
    """Looks closely at one meta-iteration: each episode's loss, then its backward pass with anomaly detection."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.warned: list[warnings.WarningMessage] = []

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            for index, loss in module.losses(batch).items():
                console().print(f"step {self.step}  episode {index}  loss {loss:.6g}", highlight=False)
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
