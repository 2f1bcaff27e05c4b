"""Adversarial meta-learning (Yin et al., 2018), https://arxiv.org/abs/1806.03316

Two arms adapt from one start: one to the clean support set, the other to an attacked one. The outer loss judges each on
the queries of the other kind, the clean arm on attacked ones and the attacked arm on clean ones, so that the start
suits tasks of both kinds.
"""

from __future__ import annotations

import re
from typing import Literal

from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms.attack import perturbed, pixels_of, surprise
from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters, adapt, detached, sgd
from fsl_cli.algorithms.network import Network, Start, classifier, demand_way, support_loss
from fsl_cli.algorithms.over_tasks import mean_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Count, Natural, Rate, Share


class ADML(Algorithm):
    """MAML whose outer loss is the sum of two arms'.

    Both support set and queries are attacked at the start's weights, before anything adapts, by `attack_steps` of FGSM
    that share out `strength`, the most that a pixel of 0..1 changes by; gradients do not go through the attack.
    `pairing` = "crossed" judges the clean arm on attacked queries and the attacked arm on clean ones, as the paper;
    "same" each on its own kind. In evaluation the support set is taken as it is. The rest as for MAML.
    """

    attacks = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        inner_lr: Rate,
        inner_steps: Natural,
        test_steps: Natural,
        strength: Share = 8 / 255,
        attack_steps: Count = 1,
        pairing: Literal["crossed", "same"] = "crossed",
        first_order: bool = False,
        frozen: str = "norm",
        head_init: Start = "learned",
    ) -> None:
        super().__init__()
        self.net = Network(backbone, way, head_init)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = test_steps
        self.strength = strength
        self.attack_steps = attack_steps
        self.pairing = pairing
        self.first_order = first_order
        self.adapted = {name for name in self.net.adaptable if not re.search(frozen, name)}

    def adapt(self, support: Examples) -> Classifier:
        demand_way(support, self.net.way)
        return classifier(self.net, self._fast_weights, support)

    def loss(self, episodes: Episodes) -> Tensor:
        """The sum of both arms' losses on the queries; of strength 0, twice MAML's."""
        learned: Parameters = dict(self.net.named_parameters())
        return mean_loss(self.net, self._both_arms, learned, episodes.support, episodes.query)

    def _both_arms(self, net: nn.Module, learned: Parameters, support: Examples, query: Examples) -> Tensor:
        bad_support, bad_query = (self._attacked(net, learned, each, support.x) for each in (support, query))
        pairs = [(support, bad_query), (bad_support, query)]
        if self.pairing == "same":
            pairs = [(support, query), (bad_support, bad_query)]
        losses = [
            task_loss(functional_call(net, self._fast_weights(net, learned, own), (asked.x, own.x)), asked.y)
            for own, asked in pairs
        ]
        return losses[0] + losses[1]

    def _attacked(self, net: nn.Module, learned: Parameters, examples: Examples, support: Tensor) -> Examples:
        start = detached(learned)

        def loss(x: Tensor) -> Tensor:
            return surprise(functional_call(net, start, (x, support)), examples.y)

        share = 1 / self.attack_steps
        x = perturbed(loss, examples.x, pixels_of(self), self.strength, self.attack_steps, share)
        return Examples(x, examples.y)

    def _fast_weights(self, net: nn.Module, parameters: Parameters, support: Examples) -> Parameters:
        steps = self.inner_steps if self.training else self.test_steps
        loss = support_loss(net, support)
        return adapt(loss, parameters, self.adapted, steps, sgd(self.inner_lr), self.first_order)
