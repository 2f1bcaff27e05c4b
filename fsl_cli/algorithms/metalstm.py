"""Meta-LSTM (Ravi and Larochelle, ICLR 2017), https://openreview.net/forum?id=rJY0-Kcll

A gradient step is what an LSTM's cell does, with a forget gate of 1 and an input gate of the learning rate. So an LSTM
learns the gates, from gradient and loss: one small network for all weights of the learner, and what these start from.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, Rule, adapt
from fsl_cli.algorithms.network import Network, Start, classifier, demand_way, query_loss, support_loss
from fsl_cli.algorithms.size_and_sign import size_and_sign
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Count, Natural

SMALLEST = 10  # gradients and losses below e^-SMALLEST are handed on linearly, as the paper's p
MOST = 1 << 18  # numbers of a task's hidden state up to which tasks go side by side on a CPU


class MetaLSTM(Algorithm):
    """Steps of all weights, theta, on the support set: sigmoid(f) * theta - sigmoid(i) * gradient, f and i by an LSTM.

    `inner_steps` are the steps in training, `test_steps` those in validation and test, `hidden` the size of the LSTM's
    state, of which each number of the network has one. `checkpoint_inner` and `head_init` as for MAML. As in the paper,
    gradients and losses count as constants, and the norms' scale and shift adapt too. The authors'
    code divides the mean gradients by the number of examples once more, a factor that the input gate can learn.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_steps: Natural,
        test_steps: Natural,
        hidden: Count = 20,
        checkpoint_inner: bool = False,
        head_init: Start = "learned",
    ) -> None:
        super().__init__()
        self.net = Network(backbone, way, head_init)
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.checkpoint_inner = checkpoint_inner
        self.adapted = set(self.net.adaptable)
        numbers = sum(value.numel() for value in self.net.parameters())
        self.many = numbers * hidden > MOST
        self.net.gates = _Gates(hidden)  # beside the weights, as all that the outer loop learns must be

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.way)
        return classifier(self.net, self._fast_weights, support, self.many or self.checkpoint_inner)

    def loss(self, episodes: Episodes) -> Tensor:
        return query_loss(self.net, self._fast_weights, episodes, self.many or self.checkpoint_inner)

    def _fast_weights(self, net: nn.Module, learned: Parameters, support: Examples) -> Parameters:
        gates = {name.removeprefix("gates."): value for name, value in learned.items() if name.startswith("gates.")}
        steps = self.inner_steps if self.training else self.test_steps
        loss, rule = support_loss(net, support), by_gates(gates)
        return adapt(loss, learned, self.adapted, steps, rule, first_order=True, checkpoint=self.checkpoint_inner)


class _Gates(nn.Module):
    """The learned part of the rule: an LSTM that reads (loss, gradient), and both gates, computed from its state.

    The gates begin nearly open, 0.98 to 0.99, and nearly shut, 0.007 to 0.018: gradient descent at such a rate.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.into = nn.Parameter(torch.empty(4 * hidden, 4 + hidden))
        self.into_bias = nn.Parameter(torch.empty(4 * hidden))
        self.forget, self.enter = (nn.Parameter(torch.empty(1, hidden + 2)) for _ in range(2))
        self.forget_bias, self.enter_bias = (nn.Parameter(torch.empty(1)) for _ in range(2))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.01, 0.01)
        nn.init.uniform_(self.forget_bias, 4, 5)
        nn.init.uniform_(self.enter_bias, -5, -4)


class _State(NamedTuple):
    """What is kept between two steps, for each of P numbers, and the weights of the gates."""

    h: Tensor  # (P, hidden)
    c: Tensor  # (P, hidden)
    forget: Tensor  # (P, 1) in front of its sigmoid
    enter: Tensor  # (P, 1) likewise
    gates: Parameters  # of `_Gates`


def by_gates(gates: Parameters) -> Rule:
    """theta_t = sigmoid(f_t) theta_{t-1} - sigmoid(i_t) gradient, for every number of the weights on its own."""

    def init(fast: Parameters) -> _State:
        theta = _column(fast)
        none = theta.new_zeros(len(theta), gates["into"].shape[0] // 4)
        return _State(none, none, torch.zeros_like(theta), torch.zeros_like(theta), gates)

    def update(step: int, fast: Parameters, gradients: Parameters, loss: Tensor, state: Any) -> tuple[Parameters, Any]:
        theta, gradient = _column(fast), _column(gradients)  # (P, 1)
        seen = torch.cat(
            [size_and_sign(loss.view(1), SMALLEST).expand(len(theta), 2), size_and_sign(gradient[:, 0], SMALLEST)], 1
        )  # (P, 4)
        own = state.gates
        enter, forget, new, out = F.linear(torch.cat([seen, state.h], 1), own["into"], own["into_bias"]).chunk(4, 1)
        c = forget.sigmoid() * state.c + enter.sigmoid() * new.tanh()
        h = out.sigmoid() * c.tanh()
        keep = F.linear(torch.cat([h, theta, state.forget], 1), own["forget"], own["forget_bias"])
        take = F.linear(torch.cat([h, theta, state.enter], 1), own["enter"], own["enter_bias"])
        moved = keep.sigmoid() * theta - take.sigmoid() * gradient
        parts = moved.squeeze(1).split([value.numel() for value in fast.values()])
        after = {name: part.view(fast[name].shape) for name, part in zip(fast, parts, strict=True)}
        return after, _State(h, c, keep, take, own)

    return Rule(init, update)


def _column(parameters: Parameters) -> Tensor:
    """All numbers of the parameters, one below the other."""
    return torch.cat([value.reshape(-1) for value in parameters.values()]).unsqueeze(1)
