"""Prototypical networks (Snell et al., NeurIPS 2017), https://arxiv.org/abs/1703.05175

A class is the mean of its support embeddings; a query belongs to the nearest mean in squared Euclidean
distance (equations 1 and 2). Nothing adapts, so any way and shot go with any trained backbone.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples


class ProtoNet(Algorithm):
    takes_features = True

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def adapt(self, support: Examples) -> Classifier:
        centres = prototypes(self.backbone(support.x), support.y)
        return lambda x: logits(self.backbone(x, support.x), centres)

    def loss(self, episodes: Episodes) -> Tensor:
        """As the authors' code: support and query pass together, so that both see the same batch statistics."""
        support, query = episodes.support, episodes.query
        supports, queries = self.backbone.joint(support.x, query.x)
        scores = logits(queries, prototypes(supports, support.y))
        return F.cross_entropy(scores.flatten(0, 1), query.y.flatten())


def prototypes(features: Tensor, y: Tensor, way: int = -1) -> Tensor:
    """The mean feature vector of each class, for any number of shots: (T, n, d), (T, n) -> (T, way, d).

    `way` must be given under `torch.func.vmap`, which cannot look into y.
    """
    member = F.one_hot(y, way).to(features.dtype)  # (T, n, way)
    return member.mT @ features / member.sum(1).unsqueeze(-1)


def logits(queries: Tensor, centres: Tensor) -> Tensor:
    """Minus the squared distances, (T, m, d), (T, way, d) -> (T, m, way).

    Expanded to |q|^2 - 2 qc + |c|^2: one matrix product instead of (T, m, way, d) differences.
    """
    squares = queries.square().sum(-1, keepdim=True) + centres.square().sum(-1).unsqueeze(-2)
    return 2 * queries @ centres.mT - squares
