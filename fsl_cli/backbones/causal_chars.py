"""A small transformer that reads a text from left to right, of which each character has features (Vaswani et al. 2017).

As `chars`, but no character looks at a later one: what stands at a place is a function of what stands up to there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.chars import Layer, demand_buildable, distances
from fsl_cli.backbones.mode import Mode
from fsl_cli.ranges import Count


class CausalChars(Backbone):
    """`layers` of `heads` heads on characters of `width` numbers, whose table has `buckets` rows.

    Features are (T, n, size, out_features), a vector a character. Raises ValueError for a norm over several texts.
    """

    takes = ("characters",)
    norms = ("none",)

    def __init__(
        self, channels: int, size: int, norm: Mode = "none", width: Count = 64, layers: Count = 2, heads: Count = 8,
        buckets: Count = 509,
    ) -> None:  # fmt: skip
        super().__init__()
        demand_buildable(norm, width, heads)
        self.norm = norm
        self.buckets = buckets
        self.table = nn.Embedding(buckets, width)
        self.layers = nn.ModuleList(Layer(width, heads, [-head for head in range(heads)]) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.out_features = width
        self.map_shape = (width, 1, 1)
        self.block_channels = [width] * layers

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        points = x.flatten(2).long()  # (T, n, size)
        size = points.shape[-1]
        far = distances(size, x.device)
        seen = torch.ones(size, size, dtype=torch.bool, device=x.device).tril()
        y = self.table(points % self.buckets)  # (T, n, size, width)
        for layer in self.layers:
            y = layer(y, far, seen)
        return self.last(y)
