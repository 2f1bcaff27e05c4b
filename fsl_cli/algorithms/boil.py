"""Body only update in the inner loop (Oh et al., ICLR 2021), https://arxiv.org/abs/2008.08882

The opposite of ANIL: the head stays as it is, so the inner loop can only move the features towards it, and the
representation itself changes with the task. The outer loop learns both, through those steps.
"""

from __future__ import annotations

from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, adapt, sgd
from fsl_cli.algorithms.network import Network, classifier, demand_way, query_loss, support_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Count, Natural, Rate


class BOIL(Algorithm):
    """Gradient steps of the backbone under a linear head that the inner loop leaves alone.

    `inner_lr` is the inner loop's learning rate, `inner_steps` its gradient steps in training and `test_steps`
    those in validation and test. The body is all of the backbone, its norms' scale and shift too, as in the
    authors' code. `first_order` and `checkpoint_inner` as for MAML.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_lr: Rate,
        inner_steps: Natural,
        test_steps: Natural,
        first_order: bool = False,
        checkpoint_inner: bool = False,
    ) -> None:
        super().__init__()
        self.net = Network(backbone, way)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.first_order = first_order
        self.checkpoint_inner = checkpoint_inner
        self.body = {f"backbone.{name}" for name, _ in backbone.named_parameters()}

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.way)
        return classifier(self.net, self._fast_weights, support, self.checkpoint_inner)

    def loss(self, episodes: Episodes) -> Tensor:
        return query_loss(self.net, self._fast_weights, episodes, self.checkpoint_inner)

    def _fast_weights(self, net: nn.Module, parameters: Parameters, support: Examples) -> Parameters:
        steps = self.inner_steps if self.training else self.test_steps
        loss = support_loss(net, support)
        return adapt(loss, parameters, self.body, steps, sgd(self.inner_lr), self.first_order, self.checkpoint_inner)
