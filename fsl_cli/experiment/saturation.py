"""A warning when training begins with a saturated softmax, from which it hardly learns."""

from __future__ import annotations

import inspect
import math
from statistics import fmean
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from fsl_cli.data.sampler import largest
from fsl_cli.experiment.assemble import Experiment
from fsl_cli.pictures.console import warn
from fsl_cli.settings.parts import OfAlgorithm, OfOptimizer, asked
from fsl_cli.settings.schema import Settings

FIRST = 5  # meta-iterations
FAR = 8.0  # times the loss of guessing: above what a 64-filter Conv4 begins with at the recipes' temperature


class WarnOfSaturation(Callback):
    """Warns when the first losses are far above the loss of guessing: the softmax is saturated."""

    def __init__(self, settings: Settings, experiment: Experiment) -> None:
        self.settings, self.algorithm = settings, experiment.learner.algorithm
        self.supervised = "train_classes" in inspect.signature(type(self.algorithm).__init__).parameters
        self.classes = experiment.train_classes if self.supervised else largest(settings.train_way)
        self.accuracy = experiment.learner.metric == "accuracy"
        self.losses: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.accuracy or trainer.global_step > FIRST:
            return
        self.losses.append(float(outputs["loss"]))
        if trainer.global_step == min(FIRST, self.settings.steps) and trainer.is_global_zero:
            guessing, found = math.log(self.classes), fmean(self.losses)
            if found > FAR * guessing:
                warn(
                    f"The loss begins at {found:.1f}, where guessing among {self.classes} classes has {guessing:.2f}: "
                    f"the logits are too large to learn from. {self._advice()}"
                )

    def _advice(self) -> str:
        """The setting that makes logits smaller, with its value."""
        if not self.supervised:
            if self.algorithm.temperature:
                return f"Raise algo.temperature={self.algorithm.temperature:g}."
            own = asked(self.settings.algo, OfAlgorithm)
            for name, value in (("scale", own.scale), ("inner_lr", own.inner_lr)):
                if value is not None:
                    return f"Lower algo.{name}={value:g}."
        lr, norm = asked(self.settings.optim, OfOptimizer).lr, self.settings.norm
        return f"Lower optim.lr={lr}, or choose another norm than norm={norm}."
