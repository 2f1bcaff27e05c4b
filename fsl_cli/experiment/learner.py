"""The LightningModule: meta-trains an algorithm and scores it episode by episode."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from hashlib import shake_128
from statistics import fmean
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._pytree import tree_map

from fsl_cli.algorithms.attack import Attack
from fsl_cli.algorithms.base import Algorithm, PredictsDistribution, PredictsInSequence
from fsl_cli.algorithms.finetuning import FineTuning, classifier
from fsl_cli.algorithms.sequence.order import shuffled
from fsl_cli.episodes import IGNORED, Classifier, Episodes, Metric, Normal
from fsl_cli.errors import UserError
from fsl_cli.experiment.by_class import Pairs, pairs
from fsl_cli.experiment.by_instance import scores
from fsl_cli.experiment.calibration import Judged
from fsl_cli.experiment.taking_in import take_in


class Score(NamedTuple):
    """How one evaluation episode went."""

    index: int  # type: ignore[assignment]
    value: float  # accuracy: the share of the queries, 0..1; in regression mean squared error; else bits a character
    loss: float  # cross-entropy; in regression the mean squared error, or minus the log-likelihood a point


class NotFinite(Exception):
    """The loss or the meta-gradient of a meta-iteration is not finite."""

    def __init__(self, step: int, what: str, losses: dict[int, float]) -> None:
        super().__init__(f"{what} at step {step}")
        self.step, self.what = step, what
        self.losses = losses  # of each episode of this process, by its index


class Learner(LightningModule):
    """One training step is one meta-iteration: a meta-batch of episodes and one step of the outer optimizer."""

    def __init__(
        self,
        algorithm: Algorithm,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        schedule: Callable[[Optimizer], LRScheduler],
        metric: Metric = "accuracy",
        steps: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.steps = steps  # meta-iterations of the whole training
        self.seed = seed  # of what a network draws at random while training
        self.metric = metric
        self.optimizer = optimizer
        self.schedule = schedule
        self.attack: Attack | None = None  # of training episodes, and of the test's beside what these reach clean
        self.finetuning: FineTuning | None = None  # of the backbone for each episode of a test
        self.finetuned: dict[str, Any] | None = None  # the same for result.json
        self.stop_at_nan = True
        self.scores: list[Score] = []  # of the last validation or test, all episodes, in the order of their index
        self.tally: Pairs = Counter()  # of the last test: which class queries were of, and which they were taken for
        self.by_instance: list[tuple[int, list[float]]] = []  # of the last test of a sequence learner: index, scores
        self.attacked: list[tuple[int, float]] = []  # of the last test under attack: index, accuracy
        self.judged: list[Judged] = []  # what the last test said of each group of episodes, in no order

    def classifier(self, episodes: Episodes) -> Classifier:
        """What the algorithm makes of T episodes, its backbone fine-tuned where a test asks for that."""
        return classifier(self.algorithm, episodes, self.finetuning)

    def configure_optimizers(self) -> Any:
        groups = self.algorithm.parameter_groups()
        optimizer = self.optimizer(groups)
        asked = {key for group in groups for key in group} - {"params", "times"}
        if unknown := asked - set(optimizer.defaults):
            raise UserError(
                f"{type(self.algorithm).__name__} asks the outer optimizer for {', '.join(sorted(unknown))}, which "
                f"{type(optimizer).__name__} has not. Type optim=adam, or algo.outer=adam."
            )
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("times", 1.0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"},
        }

    def training_step(self, groups: list[Episodes], step: int) -> Tensor:
        self._tell_progress()
        self._seed_noise()
        if self.attack:
            groups = [self.attack.episodes(self.algorithm, each, f"train/{self.seed}") for each in groups]
        loss = self._loss(groups)
        if self.trainer.world_size > 1:
            self._average_buffers()
        finite = self.trainer.strategy.reduce_boolean_decision(bool(loss.isfinite()), all=True)
        if self.stop_at_nan and not finite:
            raise NotFinite(self.trainer.global_step, f"the loss is {float(loss.detach())}", self.losses(groups))
        self._groups = groups
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        scaled = getattr(self.trainer.precision_plugin, "scaler", None)  # whose gradients may overflow, and are skipped
        gradients = [p.grad for p in self.algorithm.parameters() if p.grad is not None]
        if self.stop_at_nan and not scaled and not get_total_norm(gradients).isfinite():
            raise NotFinite(self.trainer.global_step, "the meta-gradient is not finite", self.losses(self._groups))

    def losses(self, groups: list[Episodes]) -> dict[int, float]:
        """The training loss of each episode on its own, by its index; running statistics stay as they are."""
        self._tell_progress()
        before = [buffer.clone() for buffer in self._running()]
        found = {}
        for group in groups:
            for i, index in enumerate(group.index.tolist()):
                alone: Episodes = tree_map(lambda each, i=i: None if each is None else each[i : i + 1], group)
                with torch.no_grad():
                    found[index] = float(self.algorithm.loss(alone).detach())
        for buffer, start in zip(self._running(), before, strict=True):
            buffer.copy_(start)
        return found

    def validation_step(self, groups: list[Episodes], step: int) -> None:
        self._score(groups)

    def test_step(self, groups: list[Episodes], step: int) -> None:
        self._score(groups, keep=True)

    def on_validation_epoch_start(self) -> None:
        self.scores = []
        take_in(self.algorithm, self.trainer.datamodule, self.device, self.dtype)

    def on_test_epoch_start(self) -> None:
        self.scores, self.judged, self.by_instance, self.attacked, self.tally = [], [], [], [], Counter()

    def on_validation_epoch_end(self) -> None:
        self._gather()
        self.log(f"val_{self.metric}", fmean(score.value for score in self.scores))

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

    def _tell_progress(self) -> None:
        """Tell the algorithm and the backbone which share of training is done: some drop more and more."""
        for module in self.algorithm.modules():
            if hasattr(module, "progress"):
                module.progress = self.trainer.global_step / self.steps

    def _seed_noise(self) -> None:
        """Random numbers of this step, such as for dropout, depend on the run's seed, the step and the process."""
        stream = f"{self.seed}/noise/{self.trainer.global_step}/{self.trainer.global_rank}"
        torch.manual_seed(int.from_bytes(shake_128(stream.encode()).digest(8), "little"))

    def _score(self, groups: list[Episodes], keep: bool = False) -> None:
        for episodes in groups:
            told: Normal | None = None
            if self.metric == "mse" and isinstance(self.algorithm, PredictsDistribution):
                told = self.algorithm.distribution(episodes.support)(episodes.query.x)
            predicted = told.mean if told else self.classifier(episodes)(episodes.query.x)  # (T, m, way)
            y = episodes.query.y
            if self.metric == "mse":
                loss = value = (predicted - y).square().double().mean((1, 2))  # (T,)
                if told:
                    loss = -told.log_prob(y).sum(-1).double().mean(-1)
            elif self.metric == "bits":
                each = F.cross_entropy(predicted.flatten(1, -2).mT, y.flatten(1), reduction="none").double()
                loss = each.sum(-1) / (y != IGNORED).flatten(1).sum(-1)  # (T,)
                value = loss / math.log(2)
            else:
                value = (predicted.argmax(-1) == y).double().mean(-1)
                loss = F.cross_entropy(predicted.mT, y, reduction="none").double().mean(-1)
                if keep:
                    self.tally += pairs(episodes.classes, y, predicted.argmax(-1))
                    self.judged.append(Judged(predicted.flatten(0, 1).float().cpu(), y.flatten().cpu()))
            if keep and self.attack:
                changed = self.attack.episodes(self.algorithm, episodes, "test")
                said = self.algorithm.classifier(changed)(changed.query.x).argmax(-1)
                right = (said == y).double().mean(-1).tolist()
                self.attacked += zip(episodes.index.tolist(), right, strict=True)
            if keep and isinstance(self.algorithm, PredictsInSequence):
                examples = shuffled(episodes)
                said = scores(self.algorithm.sequence(examples), examples.y)
                self.by_instance += zip(episodes.index.tolist(), said.tolist(), strict=True)
            rows = zip(episodes.index.tolist(), value.tolist(), loss.tolist(), strict=True)
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
            self.scores = _of_all(self.scores)
            self.judged = _of_all(self.judged)
            self.by_instance = _of_all(self.by_instance)
            self.attacked = _of_all(self.attacked)
            self.tally = sum(_of_all([self.tally]), Counter())
        self.scores.sort()
        self.by_instance.sort()
        self.attacked.sort()


def _of_all(own: list[Any]) -> list[Any]:
    """The lists of all processes, one after the other, the same on each."""
    parts: list[list[Any]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, own)
    return [each for part in parts for each in part]
