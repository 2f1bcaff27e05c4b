"""The LightningModule: meta-trains an algorithm and scores it episode by episode."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.episodes import Episodes


class Score(NamedTuple):
    """How one evaluation episode went."""

    index: int  # type: ignore[assignment]
    accuracy: float  # share of the queries, 0..1
    loss: float  # cross-entropy


class Learner(LightningModule):
    """One training step is one meta-iteration: a meta-batch of episodes and one step of the outer optimizer."""

    def __init__(
        self,
        algorithm: Algorithm,
        optimizer: Callable[[list[Tensor]], Optimizer],
        schedule: Callable[[Optimizer], LRScheduler],
    ) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.optimizer = optimizer
        self.schedule = schedule
        self.scores: list[Score] = []  # of the last validation or test, all episodes, in the order of their index

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([p for p in self.algorithm.parameters() if p.requires_grad])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"},
        }

    def training_step(self, groups: list[Episodes], step: int) -> Tensor:
        loss = self._loss(groups)
        if self.trainer.world_size > 1:
            self._average_buffers()
        return loss

    def validation_step(self, groups: list[Episodes], step: int) -> None:
        self._score(groups)

    def test_step(self, groups: list[Episodes], step: int) -> None:
        self._score(groups)

    def on_validation_epoch_start(self) -> None:
        self.scores = []

    def on_test_epoch_start(self) -> None:
        self.scores = []

    def on_validation_epoch_end(self) -> None:
        self._gather()
        self.log("val_accuracy", fmean(score.accuracy for score in self.scores))

    def on_test_epoch_end(self) -> None:
        self._gather()

    def _loss(self, groups: list[Episodes]) -> Tensor:
        """The mean over the episodes of all groups; running statistics too move as if they stood side by side."""
        if len(groups) == 1:
            return self.algorithm.loss(groups[0])
        buffers = self._running()
        before = [buffer.clone() for buffer in buffers]
        after = [torch.zeros_like(buffer) for buffer in buffers]
        losses = []
        for group in groups:
            share = len(group.index) / sum(len(each.index) for each in groups)
            losses.append(share * self.algorithm.loss(group))
            for buffer, start, total in zip(buffers, before, after, strict=True):
                total += share * buffer
                buffer.copy_(start)
        for buffer, total in zip(buffers, after, strict=True):
            buffer.copy_(total)
        return torch.stack(losses).sum()

    def _score(self, groups: list[Episodes]) -> None:
        for episodes in groups:
            logits = self.algorithm.adapt(episodes.support)(episodes.query.x)  # (T, m, way)
            correct = (logits.argmax(-1) == episodes.query.y).double().mean(-1)  # (T,)
            loss = F.cross_entropy(logits.mT, episodes.query.y, reduction="none").double().mean(-1)  # (T,)
            rows = zip(episodes.index.tolist(), correct.tolist(), loss.tolist(), strict=True)
            self.scores += [Score(*row) for row in rows]

    def _running(self) -> list[Tensor]:
        return [buffer for buffer in self.algorithm.buffers() if buffer.is_floating_point()]

    def _average_buffers(self) -> None:
        """Running statistics become those of one process that has seen all episodes of the step."""
        for buffer in self._running():
            torch.distributed.all_reduce(buffer)
            buffer /= self.trainer.world_size

    def _gather(self) -> None:
        """Every process's scores, the same list on each."""
        if self.trainer.world_size > 1:
            parts: list[list[Score]] = [[] for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(parts, self.scores)
            self.scores = [score for part in parts for score in part]
        self.scores.sort()
