"""Meta-SGD (Li, Zhou, Chen and Li, 2017), https://arxiv.org/abs/1707.09835

MAML's inner step goes down the gradient, equally fast everywhere. Here every number theta of the network has a learning
rate alpha of its own, theta - alpha * gradient, which the outer loop learns together with theta: how far a step goes,
and where to, as a rate may turn negative.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, Rule, adapt
from fsl_cli.algorithms.network import Network, Start, classifier, demand_way, query_loss, support_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Count, Natural, Range


class MetaSGD(Algorithm):
    """Gradient steps from a learned initialisation of backbone and linear head, at learned rates.

    All rates start from the same `inner_lr`; of two numbers, [low, high], one in between is drawn by the run's seed.
    `inner_steps`, `test_steps`, `checkpoint_inner` and `frozen` as for MAML; the paper takes one step throughout.
    `head_init` too, but for "prototypes": a head with a rate for each of its numbers keeps its size.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_lr: Annotated[float | list[float], Range(above=0)],
        inner_steps: Natural = 1,
        test_steps: Natural = 1,
        checkpoint_inner: bool = False,
        frozen: str = "norm",
        head_init: Start = "learned",
    ) -> None:
        super().__init__()
        self.net = Network(backbone, way, head_init)
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.checkpoint_inner = checkpoint_inner
        low, high = inner_lr if isinstance(inner_lr, list) else (inner_lr, inner_lr)
        start = low + (high - low) * float(torch.rand(()))
        adapted = {name: value for name, value in self.net.named_parameters() if not re.search(frozen, name)}
        self.adapted = list(adapted)
        # beside the weights, as all that the outer loop learns must be
        self.net.rates = nn.ParameterList(torch.full_like(value, start) for value in adapted.values())

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.way, " Its head has a learned rate for each number, and keeps its size.")
        return classifier(self.net, self._fast_weights, support, self.checkpoint_inner)

    def loss(self, episodes: Episodes) -> Tensor:
        return query_loss(self.net, self._fast_weights, episodes, self.checkpoint_inner)

    def _fast_weights(self, net: nn.Module, learned: Parameters, support: Examples) -> Parameters:
        rule = at_rates({name: learned[f"rates.{i}"] for i, name in enumerate(self.adapted)})
        steps = self.inner_steps if self.training else self.test_steps
        loss = support_loss(net, support)
        return adapt(loss, learned, set(self.adapted), steps, rule, checkpoint=self.checkpoint_inner)


def at_rates(rates: Parameters) -> Rule:
    """theta - alpha * gradient, alpha of theta's shape; the state is alpha, so that gradients reach it."""

    def update(step: int, fast: Parameters, gradients: Parameters, loss: Tensor, rates: Any) -> tuple[Parameters, Any]:
        return {name: fast[name] - rates[name] * gradients[name] for name in fast}, rates

    return Rule(lambda fast: rates, update)
