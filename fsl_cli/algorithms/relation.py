"""Relation networks (Sung et al., CVPR 2018), https://arxiv.org/abs/1711.06025

The measure of similarity is learned too: a small network looks at the feature maps of a query and of a class, one on
top of the other, and says how similar they are, 0 to 1 (equations 1 and 2).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.backbones.base import Backbone
from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.norm import Norm
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.ranges import Count


class RelationNet(Algorithm):
    """A class is the sum of its support images' maps. `hidden`: units of the relation module's hidden layer.

    The relation module normalises as the backbone does; under norm=support by the pairs of each support image with
    each class. The logits are its scores before the sigmoid.
    """

    def __init__(self, backbone: Backbone, hidden: Count = 8) -> None:
        super().__init__()
        self.backbone = backbone
        self.relation = _Relation(backbone.map_shape, backbone.norm, hidden)

    def adapt(self, support: Examples) -> Classifier:
        known = self.backbone(support.x)
        classes = _sums(known, support.y)
        return lambda x: self._logits(known, classes, self.backbone(x, support.x))

    def loss(self, episodes: Episodes) -> Tensor:
        """Mean squared error of the scores against 1 for the query's class and 0 for the others, equation 2."""
        support, query = episodes.support, episodes.query
        supports, queries = self.backbone.joint(support.x, query.x)
        scores = self._logits(supports, _sums(supports, support.y), queries).sigmoid()
        return F.mse_loss(scores, F.one_hot(query.y, scores.shape[-1]).to(scores.dtype))

    def _logits(self, supports: Tensor, classes: Tensor, queries: Tensor) -> Tensor:
        """Features (T, n, d) and their sums (T, way, d), features (T, m, d) -> (T, m, way)."""
        if self.backbone.norm != "support":
            return self.relation(classes, queries, 0)
        n = supports.shape[1]
        return self.relation(classes, torch.cat([supports, queries], 1), n)[:, n:]


def _sums(features: Tensor, y: Tensor) -> Tensor:
    """The sum of the features of each class: (T, n, d), (T, n) -> (T, way, d)."""
    return F.one_hot(y).to(features.dtype).mT @ features


class _Relation(nn.Module):
    """Two blocks of convolution, norm, ReLU and max-pooling, and two linear layers; first weights as the authors'."""

    def __init__(self, shape: tuple[int, int, int], norm: Mode, hidden: int) -> None:
        super().__init__()
        self.shape = shape
        channels, *sides = shape
        self.padding = 0 if min(sides) >= 10 else 1  # as the authors' where it fits: on miniImageNet
        self.first = nn.Conv2d(2 * channels, channels, 3, bias=norm == "none")
        self.second = nn.Conv2d(channels, channels, 3, bias=norm == "none")
        self.norms = nn.ModuleList(Norm(norm, channels) for _ in range(2))
        for _ in self.norms:
            sides = [max(1, (side + 2 * self.padding - 2) // 2) for side in sides]
        self.linear = nn.Sequential(nn.Linear(channels * math.prod(sides), hidden), nn.ReLU(), nn.Linear(hidden, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.ones_(module.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, classes: Tensor, images: Tensor, n_support: int) -> Tensor:
        """Classes (T, way, d), images (T, m, d), the first `n_support` from the support set -> scores (T, m, way)."""
        pairs = images.shape[1], classes.shape[1]
        k = n_support * pairs[1]
        x = _pooled(self.norms[0](self._joined(classes, images), k, relu=True))  # (T, m * way, C, H/2, W/2)
        x = _pooled(self.norms[1](self._conv(x, self.second.weight, self.second.bias), k, relu=True))
        return self.linear(x.flatten(2)).squeeze(-1).unflatten(1, pairs)

    def _joined(self, classes: Tensor, images: Tensor) -> Tensor:
        """The first convolution of each image's map under each class's: (T, m * way, C, H, W).

        It is linear, so each map is convolved once, by its half of the weights, and the results are added pair by pair.
        """
        above, below = self.first.weight.chunk(2, 1)
        of_class = self._conv(classes.unflatten(2, self.shape), above, None)
        of_image = self._conv(images.unflatten(2, self.shape), below, self.first.bias)
        return (of_image.unsqueeze(2) + of_class.unsqueeze(1)).flatten(1, 2)

    def _conv(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x.flatten(0, 1), weight, bias, padding=self.padding).unflatten(0, x.shape[:2])


def _pooled(x: Tensor) -> Tensor:
    """Halved, but for a side of one."""
    size = [2 if side > 1 else 1 for side in x.shape[-2:]]
    return F.max_pool2d(x.flatten(0, 1), size).unflatten(0, x.shape[:2])
