"""Almost no inner loop (Raghu et al., ICLR 2020), https://arxiv.org/abs/1909.09157

MAML's features hardly change while it adapts. So the inner loop learns the head alone, and the outer loop, through
those steps, the body and where the head starts from. The body sees each image once, however many steps there are.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, adapt, sgd
from fsl_cli.algorithms.network import ANY_WAY, HeadInit, Network, demand_way, prototype_head
from fsl_cli.algorithms.over_tasks import for_each_task, mean_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Natural, Rate


class ANIL(Algorithm):
    """Gradient steps of the linear head on a backbone's features.

    `inner_lr` is the inner loop's learning rate, `inner_steps` its gradient steps in training and `test_steps`
    those in validation and test; `head_init` as for MAML.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: int | list[int],
        inner_lr: Rate,
        inner_steps: Natural,
        test_steps: Natural,
        head_init: HeadInit = "learned",
    ) -> None:
        super().__init__()
        self.net = Network(backbone, way, head_init)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps

    def adapt(self, support: Examples) -> Classifier:
        way = demand_way(support, self.net.way, ANY_WAY)
        head: Parameters = dict(self.net.head.named_parameters())

        def learn(body: nn.Module, support: Examples) -> Parameters:
            features = body(support.x.unsqueeze(0)).squeeze(0)  # (n, d)
            return self._fast_head(head, features, support.y, way)

        def classify(body: nn.Module, fast: Parameters, support_x: Tensor, x: Tensor) -> Tensor:
            features = body(x.unsqueeze(0), support_x.unsqueeze(0)).squeeze(0)  # (m, d)
            return F.linear(features, **fast)

        fast = for_each_task(self.net.backbone, learn, support)
        return lambda x: for_each_task(self.net.backbone, classify, fast, support.x, x)

    def loss(self, episodes: Episodes) -> Tensor:
        """The base class's loss, computed task by task, support and query in one pass of the body."""
        own, way = [name for name, _ in self.net.head.named_parameters()], episodes.classes.shape[1]

        def one(both: nn.Module, parameters: Parameters, support: Examples, query: Examples) -> Tensor:
            head = {name: parameters[f"head.{name}"] for name in own}
            body = {name: value for name, value in parameters.items() if name.startswith("backbone.")}
            features, queries = functional_call(both, body, (support.x, query.x))  # (n, d), (m, d)
            return task_loss(F.linear(queries, **self._fast_head(head, features, support.y, way)), query.y)

        both = _Both(self.net.backbone)
        return mean_loss(both, one, dict(self.net.named_parameters()), episodes.support, episodes.query)

    def _fast_head(self, head: Parameters, features: Tensor, y: Tensor, way: int) -> Parameters:
        """The head after the inner loop on features (n, d), which are the same in every step; {}: of prototypes."""
        head = head or prototype_head(features, y, way, self.net.temperature)

        def loss(weights: Parameters, step: int) -> Tensor:
            return task_loss(F.linear(features, **weights), y)

        return adapt(loss, head, set(head), self.inner_steps if self.training else self.test_steps, sgd(self.inner_lr))


class _Both(nn.Module):
    """The backbone on both sets of one task: images (n, *item), (m, *item) -> features (n, d), (m, d)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        features, queries = self.backbone.joint(support.unsqueeze(0), query.unsqueeze(0))
        return features.squeeze(0), queries.squeeze(0)
