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
from fsl_cli.algorithms.inner_loop import Parameters, adapt, for_each_task, momentum_sgd
from fsl_cli.algorithms.supervised import CosineHead, cosine_scores, supervised_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples

MINIBATCH = 4  # images


class Baseline(Algorithm):
    """A classifier of `train_classes`; then `test_steps` steps of SGD on the support set, all of it at a time.

    The authors' steps take 4 images, and they go through the support set 100 times: one of ours moves as far as theirs
    do in one such pass, as to first order it does by the sum of the images' gradients over 4.

    `finetune` = "head" trains a new head on fixed features, "all" the backbone too. The linear head starts at zero,
    the cosine head in directions that are always the same. `momentum` dampens too, as in the authors' code.
    """

    def __init__(
        self,
        backbone: Backbone,
        train_classes: int,
        inner_lr: float,
        test_steps: int,
        head: Literal["linear", "cosine"] = "linear",
        finetune: Literal["head", "all"] = "head",
        momentum: float = 0.9,
        weight_decay: float = 0.001,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.cosine = head == "cosine"
        self.head = (CosineHead if self.cosine else nn.Linear)(backbone.out_features, train_classes)
        self.finetune = finetune
        self.takes_features = finetune == "head"
        self.test_steps = test_steps
        self.rule = momentum_sgd(inner_lr, momentum, momentum, weight_decay)

    def adapt(self, support: Examples) -> Classifier:
        if self.finetune == "all":
            return self._all(support)
        features = self.backbone(support.x)  # (T, n, d)
        start = self._new_head(features, len(features), way(support))
        head = adapt(
            lambda head, _: self._loss(head, features, support.y), start, set(start), self.test_steps, self.rule, True
        )
        return lambda x: self._scores(head, self.backbone(x, support.x))

    def loss(self, episodes: Episodes) -> Tensor:
        """Of the classifier of all training classes."""
        return supervised_loss(self.backbone, self.head, episodes)

    def _all(self, support: Examples) -> Classifier:
        """Of fast weights of backbone and head, task by task."""
        head = self._new_head(support.x, 1, way(support))  # here, as vmap would draw another for each task

        def features(net: nn.Module, weights: Parameters, *x: Tensor) -> Tensor:
            body = {name: value for name, value in weights.items() if name not in HEAD}
            return functional_call(net, body, tuple(each.unsqueeze(0) for each in x))

        def learn(net: nn.Module, support: Examples) -> Parameters:
            def loss(weights: Parameters, step: int) -> Tensor:
                return self._loss(weights, features(net, weights, support.x), support.y.unsqueeze(0))

            body: Parameters = dict(net.named_parameters())
            start = {**body, **head}
            return adapt(loss, start, set(start), self.test_steps, self.rule, True)

        def classify(net: nn.Module, fast: Parameters, support_x: Tensor, x: Tensor) -> Tensor:
            return self._scores(fast, features(net, fast, x, support_x)).squeeze(0)

        fast = for_each_task(self.backbone, learn, support)
        return lambda x: for_each_task(self.backbone, classify, fast, support.x, x)

    def _new_head(self, like: Tensor, tasks: int, way: int) -> Parameters:
        """What the head of each task starts from, on the device of `like`."""
        width = self.backbone.out_features
        if not self.cosine:
            return {HEAD[0]: like.new_zeros(tasks, way, width), HEAD[1]: like.new_zeros(tasks, way)}
        dice = torch.Generator().manual_seed(0)
        weight = (2 * torch.rand(way, width, generator=dice) - 1).to(like) / width**0.5  # as torch.nn.Linear's
        return {HEAD[0]: weight.expand(tasks, -1, -1), HEAD[1]: weight.norm(dim=1).expand(tasks, -1)}

    def _scores(self, head: Parameters, features: Tensor) -> Tensor:
        weight, bias = head[HEAD[0]], head[HEAD[1]]
        if self.cosine:
            return cosine_scores(features, weight, bias)
        return features @ weight.mT + bias.unsqueeze(-2)

    def _loss(self, head: Parameters, features: Tensor, y: Tensor) -> Tensor:
        """Summed over the tasks, whose heads are their own."""
        return F.cross_entropy(self._scores(head, features).flatten(0, 1), y.flatten(), reduction="sum") / MINIBATCH


HEAD = ("new.weight", "new.bias")  # of the new head; a cosine head's lengths stand in the bias's place
