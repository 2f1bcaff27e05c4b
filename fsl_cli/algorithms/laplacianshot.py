"""LaplacianShot (Ziko et al., ICML 2020), https://arxiv.org/abs/2006.15486

Queries that lie near each other shall have one label: each query's answer is drawn towards those of its nearest
neighbours among the queries, round by round, until all are at rest. Nothing is assumed of how many are of which class.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import logits, prototypes
from fsl_cli.algorithms.supervised import all_images, supervised_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Count, Natural, Weight


class LaplacianShot(Algorithm):
    """An ordinary classifier's features, less the mean of training images and of unit length, as SimpleShot's CL2N.

    Logits are minus squared distances to the means, plus `pull` times the sum of the answers of the `neighbours`
    nearest queries, of which a query is the first itself. Neighbours that are equally far all count, so that the order
    of the queries does not.
    """

    takes_features = True
    sees_queries = True
    centre: Tensor

    def __init__(
        self,
        backbone: Backbone,
        train_classes: int,
        pull: Weight = 0.7,
        neighbours: Count = 3,
        rounds: Natural = 20,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_features, train_classes)
        self.pull, self.neighbours, self.rounds = pull, neighbours, rounds
        self.register_buffer("centre", torch.zeros(backbone.out_features))

    def prepare(self, episodes: Iterable[Episodes]) -> None:
        """The mean feature vector of training images."""
        features = torch.cat([self.backbone(all_images(some)[0]).flatten(0, 1) for some in episodes])
        self.centre.copy_(features.mean(0))

    def adapt(self, support: Examples) -> Classifier:
        means = prototypes(self.embed(support.x), support.y)

        def classify(x: Tensor) -> Tensor:
            queries = self.embed(x, support.x)
            near = logits(queries, means)
            return near if queries.shape[1] == 1 else self._smoothed(near, neighbours(queries, self.neighbours))

        return classify

    def loss(self, episodes: Episodes) -> Tensor:
        """The loss of a classifier of all training classes."""
        return supervised_loss(self.backbone, self.head, episodes)

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The backbone's features, centred and of unit length."""
        return F.normalize(self.backbone(x, support) - self.centre, dim=-1)

    def _smoothed(self, near: Tensor, linked: Tensor) -> Tensor:
        """Logits (T, m, way) after the rounds, from those of the means alone."""
        found = near
        for _ in range(self.rounds):
            found = near + self.pull * linked @ found.softmax(-1)
        return found


def neighbours(queries: Tensor, k: int) -> Tensor:
    """Which queries are among the `k` nearest of which, itself included: (T, m, d) -> (T, m, m) of 0 and 1."""
    far = torch.cdist(queries, queries, compute_mode="donot_use_mm_for_euclid_dist")
    reach = far.kthvalue(min(k, far.shape[-1]), keepdim=True).values
    return (far <= reach).to(queries)
