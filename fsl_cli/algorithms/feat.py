"""FEAT, embedding adaptation with set-to-set functions (Ye et al., CVPR 2020), https://arxiv.org/abs/1812.03664

The class means of a task attend to each other before queries are compared with them, so that what counts is what tells
these classes apart. One attention layer does it, learned on episodes from a backbone that was trained before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import logits, prototypes, usual_temperature
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, task_loss
from fsl_cli.ranges import Count, Rate, Weight

Dropout = Callable[[Tensor, float], Tensor]  # (tensor, share) -> that share of it zero, the rest scaled up


class FEAT(Algorithm):
    """Nearest class mean in Euclidean distance, the means adapted by self-attention among them.

    Logits are minus the squared distances over `temperature`. In training a second loss counts `contrast` times: each
    class's images, support and query, attend to each other, and each image before that must be nearest to the mean of
    its class after it, at `contrast_temperature`. By default both are `usual_temperature`. The attention
    learns `lr_times` as fast as the backbone.
    """

    takes_features = True

    def __init__(
        self,
        backbone: Backbone,
        temperature: Rate | None = None,
        contrast: Weight = 1.0,
        contrast_temperature: Rate | None = None,
        heads: Count = 1,
        lr_times: Rate = 10.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.attention = _Attention(backbone.out_features, heads)
        usual = usual_temperature(backbone.out_features)
        self.temperature = temperature or usual
        self.contrast = contrast
        self.contrast_temperature = contrast_temperature or usual
        self.lr_times = lr_times

    def adapt(self, support: Examples) -> Classifier:
        centres = self.attention(prototypes(self.backbone(support.x), support.y))
        return lambda x: logits(self.backbone(x, support.x), centres) / self.temperature

    def loss(self, episodes: Episodes) -> Tensor:
        """Cross-entropy of the queries, and `contrast` times that of all images; as the authors' code."""
        support, query = episodes.support, episodes.query
        drop = _dropout(episodes.index) if self.training else _keep
        supports, queries = self.backbone.joint(support.x, query.x)
        centres = self.attention(prototypes(supports, support.y), drop=drop)
        loss = task_loss(logits(queries, centres) / self.temperature, query.y)
        features, y = torch.cat([supports, queries], 1), torch.cat([support.y, query.y], 1)
        adapted = self.attention(features, y.unsqueeze(1) == y.unsqueeze(2), drop)
        nearness = logits(features, prototypes(adapted, y)) / self.contrast_temperature
        return loss + self.contrast * task_loss(nearness, y)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": list(self.backbone.parameters())},
            {"params": list(self.attention.parameters()), "times": self.lr_times},
        ]


class _Attention(nn.Module):
    """One layer of multi-head self-attention with a residual and layer norm; each head as wide as the features."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries, self.keys, self.values = (nn.Linear(d, heads * d, bias=False) for _ in range(3))
        for projection in (self.queries, self.keys, self.values):
            nn.init.normal_(projection.weight, std=d**-0.5)
        self.merge = nn.Linear(heads * d, d)
        nn.init.xavier_normal_(self.merge.weight)
        self.norm = nn.LayerNorm(d)

    def forward(self, x: Tensor, related: Tensor | None = None, drop: Dropout | None = None) -> Tensor:
        """Sets x (T, n, d) -> (T, n, d), where each of the n attends to those it is `related` to (T, n, n) or all."""
        drop = drop or _keep
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (T, heads, n, d)
            for projection in (self.queries, self.keys, self.values)
        )
        scores = q @ k.mT / math.sqrt(x.shape[-1])  # (T, heads, n, n)
        if related is not None:
            scores = scores.masked_fill(~related.unsqueeze(1), -math.inf)
        attended = drop(scores.softmax(-1), 0.1) @ v
        return self.norm(x + drop(self.merge(attended.transpose(1, 2).flatten(2)), 0.5))


def _keep(x: Tensor, share: float) -> Tensor:
    return x


def _dropout(index: Tensor) -> Dropout:
    """What is dropped of an episode is a function of its number: not of its neighbours, processes or restarts."""
    dice = [torch.Generator().manual_seed(number) for number in index.tolist()]

    def drop(x: Tensor, share: float) -> Tensor:
        numbers = torch.stack([torch.rand(x.shape[1:], generator=each, dtype=torch.float32) for each in dice])
        return x * (numbers >= share).to(x) / (1 - share)

    return drop
