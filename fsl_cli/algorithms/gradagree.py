"""Gradient agreement (Eshratifar, Eigen and Pedram, 2018), https://arxiv.org/abs/1810.08178

A meta-gradient step that helps some tasks may harm others. So each task's loss is weighted by how much the task's
update in the inner loop agrees with the updates of all tasks of the step; where it disagrees, the weight is negative.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from fsl_cli.algorithms.across_tasks import gathered, own_of, processes
from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, adapt, sgd
from fsl_cli.algorithms.network import Network, Start, classifier, demand_way, each_query_loss, support_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Count, Natural, Rate


class GradAgree(Algorithm):
    """MAML whose tasks are weighted by how the inner loop's updates agree, over all tasks of a step.

    The settings are MAML's, but for "prototypes". The graphs of all tasks of a step are kept in memory,
    as the weights are known only when all tasks have adapted.
    """

    regresses = True
    compares_tasks = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_lr: Rate,
        inner_steps: Natural,
        test_steps: Natural,
        first_order: bool = False,
        frozen: str = "norm",
        head_init: Start = "learned",
    ) -> None:
        super().__init__()
        self.net = Network(backbone, way, head_init)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.first_order = first_order
        self.adapted = {name for name in self.net.adaptable if not re.search(frozen, name)}

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.way)
        return classifier(self.net, self._fast_weights, support)

    def loss(self, episodes: Episodes) -> Tensor:
        """The weighted sum of the queries' losses; the weights count as constants, and their sizes add up to 1."""
        losses, fast = each_query_loss(self.net, self._fast_weights, episodes)  # (T,), (T, ...) each
        updates = [(self.net.get_parameter(name) - fast[name]).detach().flatten(1) for name in sorted(self.adapted)]
        weights = own_of(agreement(gathered(torch.cat(updates, 1))))  # (T,)
        return processes() * (weights * losses).sum()

    def _fast_weights(self, net: nn.Module, parameters: Parameters, support: Examples) -> Parameters:
        steps = self.inner_steps if self.training else self.test_steps
        loss = support_loss(net, support)
        return adapt(loss, parameters, self.adapted, steps, sgd(self.inner_lr), self.first_order)


def agreement(updates: Tensor) -> Tensor:
    """The weights of M tasks from their updates (M, P): products with the sum of all, sizes adding up to 1."""
    with_all = updates @ updates.sum(0)  # (M,)
    total = with_all.abs().sum()
    return torch.where(total > 0, with_all / total, 1 / len(updates))
