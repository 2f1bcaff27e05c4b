"""Baseline and Baseline++ (Chen et al., ICLR 2019), https://arxiv.org/abs/1904.04232

Train an ordinary classifier of the training classes; for a new task, train a new head on its support set
(section 3.1). Baseline's head is linear, that of Baseline++ compares directions: cosines with a vector a class.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.by_class import way
from fsl_cli.algorithms.inner_loop import Parameters, adapt, momentum_sgd
from fsl_cli.algorithms.over_tasks import for_each_task
from fsl_cli.algorithms.supervised import CosineHead, cosine_scores, supervised_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Count, Natural, PartOf, Rate, Weight

MINIBATCH = 4  # images of a step in the authors' code


class Baseline(Algorithm):
    """A classifier of `train_classes`; then SGD goes through the support set `test_steps` times.

    Each step takes `minibatch` images (the authors: 4), in a fixed order; the last step of a pass takes those that are
    left over. Null takes all images at once: their losses are summed and divided by 4, and a linear head starts from
    zero. Version 0.1.0 did so; with 5 images it moves by 1.25 mean gradients, the authors' two steps by 2.

    `finetune` = "head" trains a new head on fixed features, "all" the backbone too. A head starts as torch's own, from
    the same numbers each time. `momentum` dampens too, as in the authors' code.
    """

    def __init__(
        self,
        backbone: Backbone,
        train_classes: int,
        inner_lr: Rate,
        test_steps: Natural,
        head: Literal["linear", "cosine"] = "linear",
        finetune: Literal["head", "all"] = "head",
        momentum: PartOf = 0.9,
        weight_decay: Weight = 0.001,
        minibatch: Count | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.cosine = head == "cosine"
        self.head = (CosineHead if self.cosine else nn.Linear)(backbone.out_features, train_classes)
        self.finetune = finetune
        self.takes_features = finetune == "head"
        self.test_steps = test_steps
        self.minibatch = minibatch
        self.rule = momentum_sgd(inner_lr, momentum, momentum, weight_decay)

    def adapt(self, support: Examples) -> Classifier:
        if self.finetune == "all":
            return self._all(support)
        features = self.backbone(support.x)  # (T, n, d)
        start = self._new_head(features, len(features), way(support))
        steps = self._steps(support.x.shape[1])

        def loss(head: Parameters, step: int) -> Tensor:
            return self._loss(head, features[:, steps[step]], support.y[:, steps[step]])

        head = adapt(loss, start, set(start), len(steps), self.rule, True)
        return lambda x: self._scores(head, self.backbone(x, support.x))

    def loss(self, episodes: Episodes) -> Tensor:
        """The loss of a classifier of all training classes."""
        return supervised_loss(self.backbone, self.head, episodes)

    def _all(self, support: Examples) -> Classifier:
        """The classifier with fast weights of backbone and head, fine-tuned task by task."""
        head = self._new_head(support.x, 1, way(support))  # here, as vmap would draw another for each task

        steps = self._steps(support.x.shape[1])

        def features(net: nn.Module, weights: Parameters, *x: Tensor) -> Tensor:
            body = {name: value for name, value in weights.items() if name not in HEAD}
            return functional_call(net, body, tuple(each.unsqueeze(0) for each in x))

        def learn(net: nn.Module, support: Examples) -> Parameters:
            def loss(weights: Parameters, step: int) -> Tensor:
                taken = steps[step]
                return self._loss(weights, features(net, weights, support.x[taken], support.x), support.y[None, taken])

            body: Parameters = dict(net.named_parameters())
            start = {**body, **head}
            return adapt(loss, start, set(start), len(steps), self.rule, True)

        def classify(net: nn.Module, fast: Parameters, support_x: Tensor, x: Tensor) -> Tensor:
            return self._scores(fast, features(net, fast, x, support_x)).squeeze(0)

        fast = for_each_task(self.backbone, learn, support)
        return lambda x: for_each_task(self.backbone, classify, fast, support.x, x)

    def _steps(self, n: int) -> list[Tensor]:
        """Which of n images each step takes."""
        if self.minibatch is None:
            return [torch.arange(n)] * self.test_steps
        dice = torch.Generator().manual_seed(0)
        passes = [torch.randperm(n, generator=dice).split(self.minibatch) for _ in range(self.test_steps)]
        return [step for each in passes for step in each]

    def _new_head(self, like: Tensor, tasks: int, way: int) -> Parameters:
        """What the head of each task starts from, on the device of `like`."""
        width = self.backbone.out_features
        if not self.cosine and self.minibatch is None:
            return {HEAD[0]: like.new_zeros(tasks, way, width), HEAD[1]: like.new_zeros(tasks, way)}
        dice = torch.Generator().manual_seed(0)
        weight = (2 * torch.rand(way, width, generator=dice) - 1).to(like) / width**0.5  # as torch.nn.Linear's
        bias = (2 * torch.rand(way, generator=dice) - 1).to(like) / width**0.5
        second = weight.norm(dim=1) if self.cosine else bias
        return {HEAD[0]: weight.expand(tasks, -1, -1), HEAD[1]: second.expand(tasks, -1)}

    def _scores(self, head: Parameters, features: Tensor) -> Tensor:
        weight, bias = head[HEAD[0]], head[HEAD[1]]
        if self.cosine:
            return cosine_scores(features, weight, bias)
        return features @ weight.mT + bias.unsqueeze(-2)

    def _loss(self, head: Parameters, features: Tensor, y: Tensor) -> Tensor:
        """Summed over the tasks, whose heads are their own."""
        images = MINIBATCH if self.minibatch is None else y.shape[1]
        return F.cross_entropy(self._scores(head, features).flatten(0, 1), y.flatten(), reduction="sum") / images


HEAD = ("new.weight", "new.bias")  # of the new head; a cosine head's lengths stand in the bias's place
