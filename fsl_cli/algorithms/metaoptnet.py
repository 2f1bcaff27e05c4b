"""MetaOptNet (Lee et al., CVPR 2019), https://arxiv.org/abs/1904.03758

The head of a task is a linear classifier that solves a convex problem, a multi-class support vector machine or ridge
regression. Training goes through the solution by the optimality conditions, however it was found.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.solvers.ridge import ridge
from fsl_cli.algorithms.solvers.svm import crammer_singer
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import PartOf, Rate


class MetaOptNet(Algorithm):
    """A linear head without a bias, the best by its own criterion, its scores times a learned scale.

    `head` = "svm": Crammer and Singer's, with the regulariser C = `cost`; "ridge": ridge regression of the one-hot
    labels with `penalty` (the authors solve for twice the labels, and so here). `smoothing` is the share of a query's
    label that goes to the other classes in the training loss.
    """

    takes_features = True

    def __init__(
        self,
        backbone: Backbone,
        head: Literal["svm", "ridge"] = "svm",
        cost: Rate = 0.1,
        penalty: Rate = 50.0,
        smoothing: PartOf = 0.0,
    ) -> None:
        super().__init__()
        if not (cost > 0 and penalty > 0 and 0 <= smoothing <= 0.5):
            raise ValueError("cost and penalty must be above 0, smoothing from 0 to 0.5")
        self.backbone = backbone
        self.head = head
        self.cost = cost
        self.penalty = penalty
        self.smoothing = smoothing
        self.scale = nn.Parameter(torch.ones(()))

    def adapt(self, support: Examples) -> Classifier:
        weights = self._fit(self.backbone(support.x), support.y)

        def classify(x: Tensor) -> Tensor:
            scores = self.backbone(x, support.x).double() @ weights  # (T, m, d) @ (T, d, way)
            return (self.scale * scores).to(self.scale.dtype)

        return classify

    def loss(self, episodes: Episodes) -> Tensor:
        return smoothed(self.adapt(episodes.support)(episodes.query.x), episodes.query.y, self.smoothing)

    def _fit(self, features: Tensor, y: Tensor) -> Tensor:
        """Features (T, n, d), labels (T, n) -> weights (T, d, way) in float64."""
        if self.head == "svm":
            return crammer_singer(features, y, self.cost)
        return ridge(features, 2 * F.one_hot(y), self.penalty)


def smoothed(logits: Tensor, y: Tensor, share: float) -> Tensor:
    """Cross-entropy of logits (T, m, way) with labels of which the other classes have `share`, evenly."""
    way = logits.shape[-1]
    # torch spreads its share over all classes, the right one too
    return F.cross_entropy(logits.flatten(0, 1), y.flatten(), label_smoothing=share * way / (way - 1))
