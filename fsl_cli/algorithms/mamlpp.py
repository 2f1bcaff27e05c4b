"""How to train your MAML (Antoniou, Edwards and Storkey, ICLR 2019), https://arxiv.org/abs/1810.09502

MAML++ is MAML with five changes, each of which can be switched off: the loss of every inner step counts at first; each
layer learns a learning rate for each step; so does each norm a scale and shift; second derivatives come in later; and
the outer learning rate falls along a cosine (`schedule.kind`). With all of them off this is MAML.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, Rule, sgd, trajectory
from fsl_cli.algorithms.network import ANY_WAY, HeadInit, Network, classifier, demand_way, task_head
from fsl_cli.algorithms.over_tasks import mean_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.errors import UserError
from fsl_cli.ranges import Natural, Rate, Share

LEAST = 0.03  # of an equal share: the least weight of an early step's loss while it counts (the authors' code)


class MAMLpp(Algorithm):
    """Gradient steps from a learned initialisation of backbone and linear head; norms are left to the outer loop.

    `multi_step` is the share of training, from its start, in which the loss of every step counts (0: only the last);
    `learn_rates` learns a rate for each parameter tensor and step, all `inner_lr` at first; `per_step_norm` learns a
    scale and shift of each norm for each step, for the support set before and the queries after it; `first_order` is
    the share of training, from its start, without second derivatives (0: never). Steps of a test beyond `inner_steps`
    are as the last of these. `checkpoint_inner` and `head_init` as for MAML.

    The paper also keeps running statistics of the norms for each step. The authors' code collects them but normalises
    by the batch at hand, in training and in test (their issues 3 and 24), as norm=transductive does here; norm=support
    takes each step's own from the support set. Running ones would be collected and never used, so there are none.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: int | list[int],
        inner_lr: Rate,
        inner_steps: Natural,
        test_steps: Natural,
        multi_step: Share = 0.1,
        learn_rates: bool = True,
        per_step_norm: bool = True,
        first_order: Share = 0.0,
        checkpoint_inner: bool = False,
        head_init: HeadInit = "learned",
    ) -> None:
        super().__init__()
        if inner_steps < 1:
            raise UserError("MAML++ learns rates and norms of each inner step. Type algo.inner_steps=1 or more.")
        self.net = Network(backbone, way, head_init)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.multi_step = multi_step
        self.first_order = first_order
        self.checkpoint_inner = checkpoint_inner
        norms = {name: value for name, value in self.net.named_parameters() if "norm" in name}
        self.adapted = [name for name in self.net.adaptable if name not in norms]
        self.per_step = set(norms) if per_step_norm else set()
        for name in self.per_step:  # the network holds those of all steps, and is called with those of one
            norms[name].data = norms[name].data.repeat(inner_steps, 1)  # (steps, channels)
        self.learn_rates = learn_rates
        if learn_rates:  # beside the weights, as all that the outer loop learns must be
            self.net.rates = nn.ParameterList(torch.full((inner_steps,), float(inner_lr)) for _ in self.adapted)

    def adapt(self, support: Examples) -> Classifier:
        way = demand_way(support, self.net.way, ANY_WAY)

        def learn(net: nn.Module, learned: Parameters, support: Examples) -> Parameters:
            *_, last = self._trajectory(net, learned, support, way)
            return last

        return classifier(self.net, learn, support, self.checkpoint_inner)

    def loss(self, episodes: Episodes) -> Tensor:
        """The queries' loss after each step, as much as the step counts, task by task to save memory."""

        def one(net: nn.Module, learned: Parameters, support: Examples, query: Examples) -> Tensor:
            before, *steps = self._trajectory(net, learned, support, episodes.classes.shape[1])
            steps = steps or [before]
            counts = importance(len(steps), self.progress / self.multi_step if self.multi_step else 1.0)
            losses = [
                count * task_loss(functional_call(net, fast, (query.x, support.x)), query.y)
                for count, fast in zip(counts, steps, strict=True)
                if count
            ]
            return torch.stack(losses).sum()

        learned: Parameters = dict(self.net.named_parameters())
        alone = self.checkpoint_inner
        return mean_loss(self.net, one, learned, episodes.support, episodes.query, one_by_one=alone)

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The backbone's features, its norms as before the first step."""
        weights = self._at({f"backbone.{name}": value for name, value in self.net.backbone.named_parameters()}, 0)
        body = {name.removeprefix("backbone."): value for name, value in weights.items()}
        return functional_call(self.net.backbone, body, (x, support))

    def _trajectory(self, net: nn.Module, learned: Parameters, support: Examples, way: int) -> Iterator[Parameters]:
        """What to call the network with on queries before the first step and after each one."""

        def loss(weights: Parameters, step: int) -> Tensor:
            return task_loss(functional_call(net, self._at(weights, step), (support.x,)), support.y)

        rule = sgd(self.inner_lr)
        if self.learn_rates:
            rule = rates_of_steps({name: learned[f"rates.{i}"] for i, name in enumerate(self.adapted)})
        steps = self.inner_steps if self.training else self.test_steps
        first_order = self.training and self.progress < self.first_order
        learned = {**learned, **task_head(net, self._at(learned, 0), support, way)}
        yield self._at(learned, 0)
        states = trajectory(loss, learned, set(self.adapted), steps, rule, first_order, self.checkpoint_inner)
        for step, fast in enumerate(states):
            yield self._at(fast, step)

    def _at(self, weights: Parameters, step: int) -> Parameters:
        """`weights` with the norms' scale and shift of this step."""
        step = min(step, self.inner_steps - 1)
        return {name: value[step] if name in self.per_step else value for name, value in weights.items()}


def rates_of_steps(rates: Parameters) -> Rule:
    """Gradient descent, each tensor at its rate of the step, rates (steps,); the state is all rates, to be learned."""

    def update(step: int, fast: Parameters, gradients: Parameters, loss: Tensor, rates: Any) -> tuple[Parameters, Any]:
        rate = {name: values[min(step, len(values) - 1)] for name, values in rates.items()}
        return {name: fast[name] - rate[name] * gradients[name] for name in fast}, rates

    return Rule(lambda fast: rates, update)


def importance(steps: int, t: float) -> list[float]:
    """How much the loss after each step counts, 1 in all: equally much at t = 0, the last step alone from t = 1 on."""
    early = max(1 - t, LEAST) / steps if t < 1 else 0.0
    return [early] * (steps - 1) + [1 - early * (steps - 1)]
