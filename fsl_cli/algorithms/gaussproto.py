"""Gaussian prototypical networks (Fort, 2017), https://arxiv.org/abs/1708.02735

Each image has, beside its embedding, a precision: how much it is to be believed. A class is the mean of its support
embeddings weighted by their precisions, which add up to the class's own, and that is its metric. So a clear image
counts more than a smudged one.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import usual_temperature
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Rate

LEAST = 1e-12  # a squared distance; the slope of the root is infinite at 0


class GaussProto(Algorithm):
    """Nearest class in the metric of its precision.

    `precision`: one number for an image (`radius`) or one for each feature (`diagonal`), 1 + softplus of a linear layer
    on the features, where the author's network has further outputs; all are alike at the start. Logits are minus the
    distances, as the author's, or minus their squares (`squared`), divided by `temperature`: by default
    `usual_temperature` of squares, its root of distances.
    """

    takes_features = True

    def __init__(
        self,
        backbone: Backbone,
        precision: Literal["radius", "diagonal"] = "radius",
        squared: bool = False,
        temperature: Rate | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.squared = squared
        self.temperature = temperature or usual_temperature(backbone.out_features) ** (1.0 if squared else 0.5)
        self.precision = nn.Linear(backbone.out_features, 1 if precision == "radius" else backbone.out_features)
        nn.init.zeros_(self.precision.weight)
        nn.init.zeros_(self.precision.bias)

    def adapt(self, support: Examples) -> Classifier:
        classes = self._classes(self.backbone(support.x), support.y)
        return lambda x: self._logits(self.backbone(x, support.x), *classes)

    def loss(self, episodes: Episodes) -> Tensor:
        """Of support and query in one pass, as a prototypical network's."""
        support, query = episodes.support, episodes.query
        supports, queries = self.backbone.joint(support.x, query.x)
        return task_loss(self._logits(queries, *self._classes(supports, support.y)), query.y)

    def _classes(self, features: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        precisions = 1 + F.softplus(self.precision(features)).expand_as(features)
        return gaussians(features, precisions, y)

    def _logits(self, queries: Tensor, centres: Tensor, precisions: Tensor) -> Tensor:
        squares = distances(queries, centres, precisions)
        return -(squares if self.squared else squares.clamp_min(LEAST).sqrt()) / self.temperature


def gaussians(features: Tensor, precisions: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The centre and the precision of each class, (T, way, d) both: of features and their precisions (T, n, d).

    Precisions add up, and weight the mean: a support image of precision 0 has no say.
    """
    member = F.one_hot(y).to(features.dtype).mT  # (T, way, n)
    total = member @ precisions
    return member @ (precisions * features) / total, total


def distances(queries: Tensor, centres: Tensor, precisions: Tensor) -> Tensor:
    """Squared distances (T, m, way) of queries (T, m, d) to each class, in its own metric."""
    away = queries.unsqueeze(2) - centres.unsqueeze(1)  # (T, m, way, d)
    return (away.square() * precisions.unsqueeze(1)).sum(-1)
