"""Transductive propagation networks (Liu et al., ICLR 2019), https://arxiv.org/abs/1805.10002

Support images and queries are the nodes of a graph, near ones linked. Labels spread along the links, in closed form,
and the network is trained through that: to make features whose graph carries labels to the right queries. Each image
has a length scale of its own, which a small network learns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Count, PartOf


class TPN(Algorithm):
    """Logits are the labels F = (I - `spread` S)^-1 Y that arrive at each query (equation 4).

    S is W normalised by its row sums to D^-1/2 W D^-1/2, and W = exp(-d/2) of the mean squared difference d of
    features over their scales, between images of which one is among the `neighbours` nearest of the other, itself
    included (equally near ones all count, so that no order matters). Scales are the exponential of a network of one
    layer of `hidden` units on the features, where the authors' is convolutional and may be negative.
    """

    sees_queries = True
    takes_features = True

    def __init__(self, backbone: Backbone, spread: PartOf = 0.99, neighbours: Count = 20, hidden: Count = 8) -> None:
        super().__init__()
        self.backbone = backbone
        self.spread, self.neighbours = spread, neighbours
        self.scale = nn.Sequential(nn.Linear(backbone.out_features, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def adapt(self, support: Examples) -> Classifier:
        known = self.backbone(support.x)
        return lambda x: self._labels(known, support.y, self.backbone(x, support.x))[:, known.shape[1] :]

    def loss(self, episodes: Episodes) -> Tensor:
        """Cross-entropy of support set and queries, as the authors'; both pass together."""
        support, query = episodes.support, episodes.query
        known, asked = self.backbone.joint(support.x, query.x)
        return task_loss(self._labels(known, support.y, asked), torch.cat([support.y, query.y], 1))

    def _labels(self, known: Tensor, y: Tensor, queries: Tensor) -> Tensor:
        """The labels (T, n + m, way) that spread from n support images with labels y to all."""
        links = self.links(torch.cat([known, queries], 1))
        given = F.one_hot(y).to(links.dtype)
        given = F.pad(given, (0, 0, 0, queries.shape[1]))  # (T, n + m, way)
        identity = torch.eye(links.shape[-1], dtype=links.dtype, device=links.device)
        return torch.linalg.solve(identity - self.spread * links, given)

    def links(self, features: Tensor) -> Tensor:
        """S (T, n + m, n + m) of features (T, n + m, d); at least in float32, as half of it cannot be solved."""
        features = features / self.scale(features).exp()
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        far = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
        far = far / features.shape[-1]
        reach = far.kthvalue(min(self.neighbours, far.shape[-1]), keepdim=True).values
        linked = far.detach() <= reach
        weights = (-far / 2).exp() * (linked | linked.mT)
        root = weights.sum(-1).rsqrt()  # an image is linked to itself, so no sum is 0
        return root.unsqueeze(-1) * weights * root.unsqueeze(-2)
