"""MAML whose inner steps have one length: w - lr * g / |g|, over all weights together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, Rule, adapt
from fsl_cli.algorithms.network import Network, classifier, demand_way, query_loss, support_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Count, Rate


def unit_steps(lr: float) -> Rule:
    """The rule. It has no state; what a momentum would keep is handed from step to step in the last argument."""

    def update(step: int, fast: Parameters, gradients: Parameters, loss: Tensor, state: Any) -> tuple[Parameters, Any]:
        squares = [gradient.square().sum() for gradient in gradients.values()]
        length = (torch.stack(squares).sum() + 1e-12).sqrt()
        return {name: fast[name] - lr * gradients[name] / length for name in fast}, state

    return Rule(lambda fast: (), update)


class UnitMAML(Algorithm):
    """`inner_steps` steps of length `inner_lr` for each task, from weights that training learns."""

    def __init__(self, backbone: Backbone, way: int, inner_lr: Rate = 0.5, inner_steps: Count = 3) -> None:
        super().__init__()
        self.net = Network(backbone, way)
        self.rule = unit_steps(inner_lr)
        self.inner_steps = inner_steps

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.way)
        return classifier(self.net, self.learn, support)

    def loss(self, episodes: Episodes) -> Tensor:
        return query_loss(self.net, self.learn, episodes)

    def learn(self, net: nn.Module, parameters: Parameters, support: Examples) -> Parameters:
        """The weights of one task: support.x is (n, channels, height, width)."""
        return adapt(support_loss(net, support), parameters, set(self.net.adaptable), self.inner_steps, self.rule)
