"""Siamese networks (Koch, Zemel and Salakhutdinov, ICML workshop 2015), https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf

Learn to tell whether two images are of one class: the probability is a sigmoid of the weighted L1 distance of their
embeddings. A query then has the label of the support image that is most probably of its class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.by_class import best_of_each_class, way
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples


class Siamese(Algorithm):
    """A backbone on both images of a pair, and a weight for each difference of their features.

    The paper's own network ends in 4096 sigmoid units; here the backbone's features are compared as they are.
    """

    takes_features = True

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.alike = nn.Linear(backbone.out_features, 1)  # the weights alpha, and a bias: equal images differ by zero

    def adapt(self, support: Examples) -> Classifier:
        """The logits of a class are those of its best pair."""
        known, classes = self.backbone(support.x), way(support)
        return lambda x: best_of_each_class(self._pairs(self.backbone(x, support.x), known), support.y, classes)

    def loss(self, episodes: Episodes) -> Tensor:
        """Binary cross-entropy of all pairs of a query and a support image, `balanced`."""
        support, query = episodes.support, episodes.query
        supports, queries = self.backbone.joint(support.x, query.x)
        return balanced(self._pairs(queries, supports), query.y.unsqueeze(2) == support.y.unsqueeze(1))

    def _pairs(self, queries: Tensor, supports: Tensor) -> Tensor:
        """How much alike, before the sigmoid: (T, m, d), (T, n, d) -> (T, m, n).

        alpha |q - s| = |alpha+ q - alpha+ s| - |alpha- q - alpha- s|, of the positive and the negative weights, so that
        no differences (T, m, n, d) are kept. But ONNX has no such distance, so an export does keep them.
        """
        if torch.compiler.is_compiling():
            return self.alike((queries.unsqueeze(2) - supports.unsqueeze(1)).abs()).squeeze(-1)
        nearer, farther = self.alike.weight.clamp(max=0).neg(), self.alike.weight.clamp(min=0)  # (1, d) each
        apart = torch.cdist(farther * queries, farther * supports, 1)
        return self.alike.bias + apart - torch.cdist(nearer * queries, nearer * supports, 1)


def balanced(scores: Tensor, same: Tensor) -> Tensor:
    """Binary cross-entropy of pairs (T, m, n), those of one class and those of two weighing one half each.

    This is what as many of the one as of the other, drawn at random as in the paper, give on average; an episode has
    way - 1 times as many of the other.
    """
    target = same.to(scores.dtype)
    each = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    halves = [(each * part).sum((1, 2)) / part.sum((1, 2)) for part in (target, 1 - target)]  # (T,) each
    return (halves[0] + halves[1]).mean() / 2
