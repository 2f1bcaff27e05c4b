"""Reptile (Nichol, Achiam and Schulman, 2018), https://arxiv.org/abs/1803.02999

Train on a task as one would on any data set, then move the initialisation theta towards the weights phi that came
out: theta + epsilon * mean(phi - theta). No second derivatives, and no query set while training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, Rule, adam, adapt, sgd
from fsl_cli.algorithms.network import Network, classifier, demand_way
from fsl_cli.algorithms.over_tasks import for_each_task
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Count, Natural, Rate

SETS = 8  # of a support set and a query that pass together; all at once need memory

Squares = tuple[Parameters, Tensor]  # Adam's mean squared gradients, and their weight


class Reptile(Algorithm):
    """An initialisation of backbone and linear head that lies near the weights of every task.

    A training episode is its support set: `inner_steps` steps on minibatches of `inner_batch` examples. In validation
    and test there are `test_steps` steps on minibatches of `test_batch`. All parameters adapt, by Adam without momentum
    or by `sgd`, and a minibatch is normalised by its own statistics, as in the authors' code.

    Training carries Adam's mean squared gradients from task to task, as the authors do (here all tasks of a meta-batch
    start from the same, and their mean goes on): from nothing, Adam's first steps have one size in every direction.
    Each test starts from what training ended with and leaves it as it was, as theirs.

    `with_query`: under norm=support, a query is normalised by the support set and itself, each query alone, which is
    the authors' inductive test. It passes the support set once for each query, and makes no graph to export.
    """

    regresses = True

    weight: Tensor

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_lr: Rate,
        inner_steps: Count,
        inner_batch: Count,
        test_steps: Natural,
        test_batch: Count,
        inner_rule: Literal["adam", "sgd"] = "adam",
        with_query: bool = False,
    ) -> None:
        super().__init__()
        self.net = Network(backbone, way)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.inner_batch = inner_batch
        self.test_steps = test_steps
        self.test_batch = test_batch
        self.inner_rule = inner_rule
        self.with_query = with_query
        for name, value in self.net.named_parameters():  # buffers: processes average them and checkpoints hold them
            self.register_buffer(_square(name), torch.zeros_like(value))
        self.register_buffer("weight", torch.zeros(()))

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.way)

        # a support set does not know its episode's number: all take their examples in the same order, which in
        # training would favour the labels of the last minibatch a little each time
        [order] = self._orders([0], support)
        carried = self._carried()
        if not self.with_query or self.net.backbone.norm != "support":
            return classifier(self.net, lambda net, theta, own: self._train_on(net, own, order, carried)[0], support)
        phi = for_each_task(self.net, lambda net, own: self._train_on(net, own, order, carried)[0], support)
        return lambda x: for_each_task(self.net, _one_query_at_a_time, phi, support.x, x)

    def loss(self, episodes: Episodes) -> Tensor:
        """Half the squared distance |theta - phi|^2, phi held constant: its gradient is theta - phi."""
        theta = dict(self.net.named_parameters())
        carried = self._carried()

        def learn(net: nn.Module, support: Examples, order: Tensor) -> tuple[Parameters, Squares]:
            return self._train_on(net, support, order, carried)

        orders = self._orders(episodes.index.tolist(), episodes.support)
        phi, (squares, weight) = for_each_task(self.net, learn, episodes.support, orders)  # (T, *shape) each
        if self.training:
            for name in theta:
                getattr(self, _square(name)).copy_(squares[name].mean(0))
            self.weight.copy_(weight.mean(0))
        return torch.stack([(theta[name] - phi[name]).square().sum() for name in theta]).sum() / (2 * len(orders))

    def _train_on(
        self, net: nn.Module, support: Examples, order: Tensor, squares: Squares
    ) -> tuple[Parameters, Squares]:
        """theta after a step on each minibatch, order (steps, size), and the mean squares then; keeps no graph."""
        rule = sgd(self.inner_lr) if self.inner_rule == "sgd" else adam(self.inner_lr, beta1=0.0, squares=squares)
        last = [squares]

        def update(step: int, fast: Parameters, gradients: Parameters, loss: Tensor, state: Any) -> Any:
            fast, state = rule.update(step, fast, gradients, loss, state)
            if state:
                last[0] = state[1:]
            return fast, state

        def loss(weights: Parameters, step: int) -> Tensor:
            return task_loss(functional_call(net, weights, (support.x[order[step]],)), support.y[order[step]])

        theta: Parameters = dict(self.net.named_parameters())
        with torch.no_grad():
            return adapt(loss, theta, set(theta), len(order), Rule(rule.init, update)), last[0]

    def _carried(self) -> Squares:
        return {name: getattr(self, _square(name)) for name, _ in self.net.named_parameters()}, self.weight

    def _orders(self, seeds: Sequence[int], support: Examples) -> Tensor:
        """Which examples of its support set each of T tasks takes at each step: (T, steps, size)."""
        steps, size = (self.inner_steps, self.inner_batch) if self.training else (self.test_steps, self.test_batch)
        orders = [minibatches(seed, support.x.shape[1], size, steps) for seed in seeds]
        return torch.stack(orders).to(support.x.device)


def _one_query_at_a_time(net: nn.Module, weights: Parameters, support: Tensor, x: Tensor) -> Tensor:
    """Logits (m, way) of queries (m, *item), each the last of a set of its own with the support set's k images."""
    body = {name.removeprefix("backbone."): value for name, value in weights.items() if name.startswith("backbone.")}
    found = []
    for queries in x.split(SETS):
        sets = torch.cat([support.expand(len(queries), *support.shape), queries.unsqueeze(1)], 1)  # (m, k + 1, *item)
        found.append(functional_call(net.get_submodule("backbone"), body, (sets,))[:, -1])
    return F.linear(torch.cat(found), weights["head.weight"], weights["head.bias"])


def _square(name: str) -> str:
    """The buffer of the mean squared gradients of a parameter."""
    return "square_" + name.replace(".", "_")


def minibatches(seed: int, n: int, size: int, steps: int) -> Tensor:
    """n examples shuffled again and again, one pass after the other, and all that cut into minibatches: (steps, size).

    As the authors': a minibatch may end one pass and begin the next. The seed alone decides.
    """
    dice = torch.Generator().manual_seed(seed)
    passes = [torch.randperm(n, generator=dice) for _ in range(1 + steps * size // n)]
    return torch.cat(passes)[: steps * size].view(steps, size)
