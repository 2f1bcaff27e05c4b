"""Fast context adaptation, CAVIA, first called CAML (Zintgraf et al., ICML 2019), https://arxiv.org/abs/1810.03642

Of MAML's network only a few numbers adapt to a task, its context phi: zero to begin with, it takes a few
gradient steps and enters one layer of a network theta that all tasks share and only the outer loop learns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, adapt, sgd
from fsl_cli.algorithms.network import Network, classifier, demand_way, query_loss, support_loss
from fsl_cli.backbones.base import Backbone, Changes
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.errors import UserError
from fsl_cli.ranges import Count, Natural, Rate


class CAVIA(Algorithm):
    """Gradient steps on `context` numbers that modulate the backbone's block `layer` (from 1), on nothing else.

    With `film` they scale and shift its channels (images). Without, they only shift them, which is what appending
    them to the layer's input does where there is no norm (regression). `inner_lr` is the inner loop's learning
    rate, `inner_steps` its gradient steps in training and `test_steps` those in validation and test.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_lr: Rate,
        inner_steps: Natural,
        test_steps: Natural,
        context: Count = 100,
        layer: Count = 3,
        film: bool = True,
        first_order: bool = False,
    ) -> None:
        super().__init__()
        self.net = _Network(backbone, way, context, layer - 1, film)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.first_order = first_order

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.network.way)

        def learn(net: nn.Module, shared: Parameters, support: Examples) -> Parameters:
            return {"context": self._learned(net, shared, support)["context"]}  # the rest is the network's own

        return classifier(self.net, learn, support)

    def loss(self, episodes: Episodes) -> Tensor:
        """The base class's loss, computed task by task so that memory does not grow with the meta-batch."""
        return query_loss(self.net, self._learned, episodes)

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The backbone's features, under the context that each task starts from."""
        return self.net.network.backbone(x, support, self.net.changes())

    def _learned(self, net: nn.Module, shared: Parameters, support: Examples) -> Parameters:
        """`shared` as it is, with one task's context."""
        start = {**shared, "context": net.get_buffer("context")}
        steps = self.inner_steps if self.training else self.test_steps
        loss = support_loss(net, support)
        return adapt(loss, start, {"context"}, steps, sgd(self.inner_lr), self.first_order)


class _Network(nn.Module):
    """The network of one task with a context in one block: (n, *item), the support set's images -> (n, way)."""

    context: Tensor  # always zero here, the start of each task: nothing to learn and nothing to save

    def __init__(self, backbone: Backbone, way: int, context: int, block: int, film: bool) -> None:
        super().__init__()
        self.network = Network(backbone, way)
        blocks = len(backbone.block_channels)
        if block >= blocks:
            raise UserError(f"layer={block + 1}: this backbone has {blocks} blocks. Type algo.layer={blocks} or less.")
        channels = backbone.block_channels[block]
        self.block = block
        self.film = film
        self.enter = nn.Linear(context, 2 * channels if film else channels, bias=film)
        if film:  # as the authors'; in regression theirs is torch's default
            nn.init.kaiming_uniform_(self.enter.weight, nonlinearity="linear")
        self.register_buffer("context", torch.zeros(context), persistent=False)

    def forward(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        return self.network(x, support, self.changes())

    def changes(self) -> Changes:
        return {self.block: self._modulated}

    def _modulated(self, x: Tensor) -> Tensor:
        entered = self.enter(self.context)[:, None, None]  # (2 * channels, 1, 1)
        if not self.film:
            return x + entered
        gamma, beta = entered.chunk(2)
        return gamma * x + beta  # (1, n, channels, H, W)
