"""Prototypical networks (Snell et al., NeurIPS 2017), https://arxiv.org/abs/1703.05175

A class is the mean of its support embeddings; a query belongs to the nearest mean in squared Euclidean
distance (equations 1 and 2). Nothing adapts, so any way and shot go with any trained backbone.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Rate


class ProtoNet(Algorithm):
    """Nearest class mean by `distance`.

    `euclidean`: squared distances, divided by `temperature`, by default by `usual_temperature`. `cosine`: cosines,
    which lie within one of zero however long the features are, so the network cannot sharpen them; a learned scale
    does, which starts from `scale` (10 as in Gidaris and Komodakis 2018, https://arxiv.org/abs/1804.09458). From a
    backbone trained on all classes, that is Meta-Baseline (Chen et al., ICCV 2021, equations 1 and 2), https://arxiv.org/abs/2003.04390
    """

    takes_features = True
    scale: nn.Parameter | None

    def __init__(
        self,
        backbone: Backbone,
        distance: Literal["euclidean", "cosine"] = "euclidean",
        temperature: Rate | None = None,
        scale: Rate = 10.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        cosine = distance == "cosine"
        self.temperature = 0.0 if cosine else temperature or usual_temperature(backbone.out_features)
        self.scale = nn.Parameter(torch.tensor(float(scale))) if cosine else None

    def adapt(self, support: Examples) -> Classifier:
        centres = prototypes(self.backbone(support.x), support.y)
        return lambda x: self._logits(self.backbone(x, support.x), centres)

    def loss(self, episodes: Episodes) -> Tensor:
        """Cross-entropy. As in the authors' code, support and query pass together and share batch statistics."""
        support, query = episodes.support, episodes.query
        supports, queries = self.backbone.joint(support.x, query.x)
        return task_loss(self._logits(queries, prototypes(supports, support.y)), query.y)

    def _logits(self, queries: Tensor, centres: Tensor) -> Tensor:
        if self.scale is None:
            return logits(queries, centres) / self.temperature
        return self.scale * cosines(queries, centres)


def usual_temperature(features: int) -> float:
    """The default temperature for squared distances of so many features: 64 for Conv4's 1600 at 84 pixels.

    They grow with the number of features: of 1600 they begin in the hundreds, the softmax saturates, and hardly
    anything is learned. 64 is the temperature of FEAT's authors on 640 features.
    """
    return max(1.0, features / 25)


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
    return queries @ (2 * centres).mT - squares  # there are fewer centres to double


def cosines(queries: Tensor, others: Tensor) -> Tensor:
    """The cosine of the angle between each two, (T, m, d), (T, n, d) -> (T, m, n)."""
    return F.normalize(queries, dim=-1) @ F.normalize(others, dim=-1).mT
