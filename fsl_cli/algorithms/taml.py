"""Task-agnostic meta-learning (Jamal and Qi, CVPR 2019), https://arxiv.org/abs/1805.07722

A start that already suits some tasks is biased against others. So the outer loss has a term that keeps the start
neutral: its predictions should have a large entropy before adapting and a small one after; or the losses of the tasks
before adapting should be nearly equal, by a measure that economists use for incomes.
"""

from __future__ import annotations

import re
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms.across_tasks import gathered
from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, adapt, sgd
from fsl_cli.algorithms.metasgd import at_rates
from fsl_cli.algorithms.network import Network, Start, classifier, demand_way, query_loss, support_loss
from fsl_cli.algorithms.over_tasks import for_each_task, mean_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.errors import UserError
from fsl_cli.ranges import Count, Natural, Rate, Weight

Measure = Literal["theil", "ge", "atkinson", "gini", "varlogs"]


class TAML(Algorithm):
    """MAML, or with `learn_rates` Meta-SGD, with a term that keeps the start neutral, times `weight`.

    `regulariser` = "entropy": of the predictions on the queries, after adapting less before; classes only. The others
    measure the inequality of the losses on the support set before adapting, over all tasks of a step, in several
    processes too: "theil", "ge" (generalised entropy) and "atkinson" with their `exponent`, "gini", and "varlogs", the
    variance of the logs. With `weight` = 0 it is MAML. The rest as for MAML.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_lr: Rate,
        inner_steps: Natural,
        test_steps: Natural,
        regulariser: Literal["entropy", "theil", "ge", "atkinson", "gini", "varlogs"] = "entropy",
        weight: Weight = 1.0,
        exponent: Weight = 2.0,
        learn_rates: bool = False,
        checkpoint_inner: bool = False,
        frozen: str = "norm",
        head_init: Start = "learned",
        regression: bool = False,
    ) -> None:
        super().__init__()
        if regression and regulariser == "entropy":
            raise UserError("A regression has no entropy of classes. Type algo.regulariser=theil, or another.")
        self.net = Network(backbone, way, head_init)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.regulariser = regulariser
        self.weight = weight
        self.exponent = exponent
        self.checkpoint_inner = checkpoint_inner
        self.compares_tasks = regulariser != "entropy" and weight > 0
        adapted = {name: value for name, value in self.net.named_parameters() if not re.search(frozen, name)}
        self.adapted = list(adapted)
        self.learn_rates = learn_rates
        if learn_rates:  # beside the weights, as all that the outer loop learns must be
            self.net.rates = nn.ParameterList(torch.full_like(value, inner_lr) for value in adapted.values())

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.way)
        return classifier(self.net, self._fast_weights, support, self.checkpoint_inner)

    def loss(self, episodes: Episodes) -> Tensor:
        if self.regulariser == "entropy" and self.weight:
            learned: Parameters = dict(self.net.named_parameters())
            sets = episodes.support, episodes.query
            return mean_loss(self.net, self._with_entropy, learned, *sets, one_by_one=self.checkpoint_inner)
        own = query_loss(self.net, self._fast_weights, episodes, self.checkpoint_inner)
        if self.regulariser == "entropy" or not self.weight:
            return own
        before = for_each_task(self.net, lambda net, support: task_loss(net(support.x), support.y), episodes.support)
        return own + self.weight * inequality(gathered(before), self.regulariser, self.exponent)

    def _with_entropy(self, net: nn.Module, learned: Parameters, support: Examples, query: Examples) -> Tensor:
        """One task's loss, and the term: the entropy of its queries after adapting, less that before."""
        fast = self._fast_weights(net, learned, support)
        before, after = (functional_call(net, weights, (query.x, support.x)) for weights in (learned, fast))
        return task_loss(after, query.y) + self.weight * (entropy(after) - entropy(before))

    def _fast_weights(self, net: nn.Module, learned: Parameters, support: Examples) -> Parameters:
        rule = sgd(self.inner_lr)
        if self.learn_rates:
            rule = at_rates({name: learned[f"rates.{i}"] for i, name in enumerate(self.adapted)})
        steps = self.inner_steps if self.training else self.test_steps
        loss = support_loss(net, support)
        return adapt(loss, learned, set(self.adapted), steps, rule, checkpoint=self.checkpoint_inner)


def entropy(logits: Tensor) -> Tensor:
    """The mean entropy, in nats, of the probabilities that logits (m, way) mean."""
    log_p = F.log_softmax(logits, -1)
    return -(log_p.exp() * log_p).sum(-1).mean()


def inequality(losses: Tensor, measure: Measure, exponent: float = 2.0) -> Tensor:
    """How unequal M tasks' losses are, which are at least 0; 0 where all are equal, and of one task.

    Each depends on the losses' ratios to their mean alone. `exponent` is that of the generalised entropy (1: Theil's
    index, 0: the mean log deviation) and of Atkinson's index, the aversion to inequality.
    """
    ratios = losses / losses.mean()  # (M,)
    logs = ratios.clamp(min=torch.finfo(ratios.dtype).tiny).log()
    if measure == "theil" or (measure == "ge" and exponent == 1):
        return (ratios * logs).mean()
    if measure == "ge" and exponent == 0:
        return -logs.mean()
    if measure == "ge":
        return (ratios.pow(exponent).mean() - 1) / (exponent * (exponent - 1))
    if measure == "atkinson":
        if exponent == 1:
            return 1 - logs.mean().exp()
        return 1 - (logs * (1 - exponent)).exp().mean().pow(1 / (1 - exponent))
    if measure == "gini":
        return (ratios[:, None] - ratios).abs().mean() / 2
    return (logs - logs.mean()).square().mean()
