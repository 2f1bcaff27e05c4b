"""Learning to learn by gradient descent by gradient descent (Andrychowicz et al. 2016), https://arxiv.org/abs/1606.04474

The optimizer is a network. An LSTM sees each number's gradient and says how far that number moves, theta + g(gradient);
it is trained so that the losses along the way, all of them, are small on problems drawn from some distribution, and
then minimises others. Here a problem is the loss of a small network on an episode's support set: a quadratic function
with `data=quadratics`, else images to be told apart, all at each step where the paper takes a minibatch. What an
episode adds to the paper is the query set: its accuracy says what the weights that were reached are worth on images
that were not trained on. `fsl show optimizers run=DIR` is the paper's figure.
"""

from __future__ import annotations

from hashlib import shake_128

import torch
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.learned_optimizer.coordinatewise import CoordinateLSTM, Kept
from fsl_cli.algorithms.learned_optimizer.problems import Problems
from fsl_cli.algorithms.network import Network, Start, demand_way, with_weights
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Count, Natural, Rate, Weight


class L2L(Algorithm):
    """A two-layer LSTM of `hidden` units for each number, trained on the mean loss of `inner_steps` steps.

    Backpropagation through time is cut every `segment` steps, behind which weights and states are carried on; there are
    `test_steps` in validation and test. Gradients come in as size and sign, linear below e^-`preprocessing`, or, with
    0, as they are; what comes out is multiplied by `step_scale`. The network, whose head has biases with `bias`, is the
    problem and learns nothing itself: in training each problem starts from weights of its own, normal with mean and
    deviation of each tensor as it was built, drawn by the episode's number; in validation and test, which know no such
    numbers, all start from the network as it was built. Each meta-iteration takes all segments of its problems, where
    the authors take an outer step for each.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_steps: Count = 100,
        test_steps: Natural = 100,
        segment: Count = 20,
        hidden: Count = 20,
        preprocessing: Weight = 10.0,
        step_scale: Rate = 0.1,
        bias: bool = True,
        head_init: Start = "small",
    ) -> None:
        super().__init__()
        self.net = Network(backbone, way, head_init)
        if not bias:
            self.net.head.register_parameter("bias", None)
        self.net.requires_grad_(False)
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.segment = segment
        self.optimizer = CoordinateLSTM(hidden, preprocessing, step_scale)

    def adapt(self, support: Examples) -> Classifier:
        problems = self.problems(support)
        for reached in problems.descent(self.inner_steps if self.training else self.test_steps, self.optimizer):
            theta = reached.theta
        return with_weights(self.net, problems.named(theta), support)

    def loss(self, episodes: Episodes) -> Tensor:
        """The mean of the losses after each step; its gradient is computed here, segment by segment, and handed out."""
        problems = self.problems(episodes.support, self._starts(episodes.index.tolist()))
        total = torch.zeros_like(problems.start[:, 0])
        learned = dict(self.optimizer.named_parameters())
        gradients = {name: torch.zeros_like(value) for name, value in learned.items()}
        steps, later = list[list[Kept]](), list[Tensor]()
        for number, reached in enumerate(problems.descent(self.inner_steps, self.optimizer)):
            if not number:
                continue
            total = total + reached.loss
            steps.append(reached.kept)
            later.append(reached.gradient)
            if torch.is_grad_enabled() and (number % self.segment == 0 or number == self.inner_steps):
                ahead = torch.stack(later).flip(0).cumsum(0).flip(0)  # a step adds to all losses after it
                for name, gradient in self.optimizer.gradients(steps, ahead.unbind()).items():
                    gradients[name] += gradient / len(total) / self.inner_steps
            if number % self.segment == 0:
                steps, later = [], []
        handed = [((value - value.detach()) * gradients[name]).sum() for name, value in learned.items()]
        return total.mean() / self.inner_steps + torch.stack(handed).sum()

    def problems(self, support: Examples, start: Tensor | None = None) -> Problems:
        """The losses of the network on T support sets, from weights `start` (T, P), or as it was built."""
        demand_way(support, self.net.way)
        if start is None:
            start = torch.cat([value.flatten() for value in self.net.parameters()]).expand(len(support.x), -1)
        return Problems(self.net, support, start)

    def _starts(self, index: list[int]) -> Tensor:
        """Weights of the problem of each episode, (T, P): fresh ones, spread as those of the network."""
        own = list(self.net.parameters())
        mean = torch.cat([value.mean().expand(value.numel()) for value in own])
        std = torch.cat([value.std(correction=0).expand(value.numel()) for value in own])
        drawn = []
        for number in index:
            seed = int.from_bytes(shake_128(f"l2l/{number}".encode()).digest(8), "little")
            drawn.append(torch.randn(len(mean), generator=torch.Generator().manual_seed(seed)))
        return mean + std * torch.stack(drawn).to(mean)
