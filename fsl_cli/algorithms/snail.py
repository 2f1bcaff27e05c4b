"""SNAIL: temporal convolutions and attention over a task's sequence (Mishra et al., ICLR 2018)

https://arxiv.org/abs/1707.03141
The support images, each with its label, and then a query without one are a sequence; the last output is the query's
class. Convolutions combine neighbours in the sequence, attention reaches far ones; both look back only (section 3).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.neural_process import mlp
from fsl_cli.algorithms.sequence.causal import Attention, Dense
from fsl_cli.algorithms.sequence.order import Counts, code, demand_length, demand_way, lengths
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Count


class SNAIL(Algorithm):
    """Attention, temporal convolutions, attention, temporal convolutions, attention, and a linear layer.

    The number of convolutions follows from the longest sequence of the training. Their dilation starts at
    `first_dilation` and doubles each time: from 2, as in the paper, convolutions alone reach even
    distances only; from 1, all. `embed` are the widths of linear layers on the backbone's features, with ReLU between
    them: with 64 on a Conv4 the paper's network for Omniglot.
    """

    ordered = True
    any_shot = False

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        shot: Counts = 1,
        filters: Count = 128,
        first_dilation: Count = 2,
        embed: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.way = way
        self.lengths = lengths(way, shot)
        wide = self.lengths[-1] + 1  # with the query
        widths = [backbone.out_features, *(embed or [])]
        self.embedding = mlp(*widths)
        channels = widths[-1] + way
        layers: list[nn.Module] = []
        for keys, values in ((64, 32), (256, 128), (512, 256)):
            layers.append(Attention(channels, keys, values))
            channels += values
            if values != 256:
                for i in range(math.ceil(math.log2(wide))):
                    layers.append(Dense(channels, filters, first_dilation * 2**i))
                    channels += filters
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(channels, way)

    def adapt(self, support: Examples) -> Classifier:
        self._demand(support)
        known = self._known(support, self.backbone(support.x))
        return lambda x: self._logits(known, self.embedding(self.backbone(x, support.x)))

    def loss(self, episodes: Episodes) -> Tensor:
        """Cross-entropy of the queries, each the last of a sequence; images in one pass of the backbone."""
        support, query = episodes.support, episodes.query
        self._demand(support)
        supports, queries = self.backbone.joint(support.x, query.x)
        return task_loss(self._logits(self._known(support, supports), self.embedding(queries)), query.y)

    def _demand(self, support: Examples) -> None:
        demand_way(support, self.way)
        demand_length(support, self.lengths)

    def _known(self, support: Examples, features: Tensor) -> Tensor:
        return torch.cat([self.embedding(features), code(support.y, self.way).to(features)], -1)  # (T, n, d + way)

    def _logits(self, known: Tensor, queries: Tensor) -> Tensor:
        """The support sequence (T, n, C) and queries (T, m, d), each of which ends a sequence of its own."""
        ends = F.pad(queries, (0, self.way))  # no label
        for layer in self.layers:
            known, ends = layer(known, ends)
        return self.head(ends)
