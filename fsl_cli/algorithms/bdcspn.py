"""BD-CSPN: prototypes rectified by the queries (Liu, Song, Qin, ECCV 2020), https://arxiv.org/abs/1911.10713

Queries are shifted so that their mean is the support set's; each is then taken for its nearest class, and has a say in
that class's prototype, by how sure it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import cosines, prototypes
from fsl_cli.algorithms.supervised import supervised_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Rate


class BDCSPN(Algorithm):
    """An ordinary classifier's features of unit length; logits are `scale` times cosines with rectified prototypes.

    An image weighs in its class by the softmax of such logits for the means. A single query is judged by the means.
    """

    takes_features = True
    sees_queries = True

    def __init__(self, backbone: Backbone, train_classes: int, scale: Rate = 10.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_features, train_classes)
        self.scale = scale

    def adapt(self, support: Examples) -> Classifier:
        known = Examples(self.embed(support.x), support.y)
        means = prototypes(*known)

        def classify(x: Tensor) -> Tensor:
            queries = self.embed(x, support.x)
            if queries.shape[1] == 1:
                return self.scale * cosines(queries, means)
            shifted = queries + known.x.mean(1, keepdim=True) - queries.mean(1, keepdim=True)
            return self.scale * cosines(shifted, self.rectified(known, shifted, means))

        return classify

    def loss(self, episodes: Episodes) -> Tensor:
        """The loss of a classifier of all training classes."""
        return supervised_loss(self.backbone, self.head, episodes)

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The backbone's features, of unit length."""
        return F.normalize(self.backbone(x, support), dim=-1)

    def rectified(self, known: Examples, queries: Tensor, means: Tensor) -> Tensor:
        """Prototypes (T, way, d): the weighted mean of a class's support features and of queries taken for it."""
        way = means.shape[1]
        taken_for = cosines(queries, means).argmax(-1)
        features = torch.cat([known.x, queries], 1)  # (T, n + m, d)
        member = F.one_hot(torch.cat([known.y, taken_for], 1), way).to(features)
        share = member * (self.scale * cosines(features, means)).softmax(-1)
        return share.mT @ features / share.sum(1).unsqueeze(-1)
