"""A small transformer over the characters of a text (Vaswani et al. 2017), for any language and script.

A character is a row of a table, chosen by its code point, so no alphabet is fixed. Where a character stands enters as
a learned bias for each distance (Shaw et al. 2018; Raffel et al. 2020). Each head begins by looking at one
neighbour, as n-grams do. A text's features are the mean over its characters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.mode import Mode
from fsl_cli.ranges import Count

REACH = 16  # characters: whatever is farther counts as this far
NEAR = 5.0  # added at the start to the logit of the neighbour that a head begins with
HIDDEN = -1e4  # a logit that leaves nothing: of places after a text's end


class Chars(Backbone):
    """`layers` of `heads` heads on characters of `width` numbers, whose table has `buckets` rows.

    Raises ValueError for a norm over several texts: each layer has its own (LayerNorm), over each character's numbers.
    """

    takes = ("texts",)
    norms = ("none",)  # that it can be built with

    def __init__(
        self, channels: int, size: int, norm: Mode = "none", width: Count = 64, layers: Count = 2, heads: Count = 8,
        buckets: Count = 4093,
    ) -> None:  # fmt: skip
        super().__init__()
        demand_buildable(norm, width, heads)
        self.norm = norm
        self.buckets = buckets
        self.table = nn.Embedding(buckets, width)
        self.layers = nn.ModuleList(Layer(width, heads, neighbours(heads)) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.out_features = width
        self.map_shape = (width, 1, 1)
        self.block_channels = [width] * layers

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        points = x.flatten(2).long()  # (T, n, size)
        there = points > 0
        far = distances(points.shape[-1], x.device)
        y = self.table(points % self.buckets)  # (T, n, size, width)
        for number, layer in enumerate(self.layers):
            y = layer(y, far, there[:, :, None, None])
            if number in changes:
                y = changes[number](y.mT.unsqueeze(-1)).squeeze(-1).mT
        kept = there.unsqueeze(-1).to(y.dtype)
        return (self.last(y) * kept).sum(2) / kept.sum(2).clamp(min=1)  # (T, n, width)


def demand_buildable(norm: Mode, width: int, heads: int) -> None:
    """Raises ValueError for a norm over several texts, and for a width that heads do not divide."""
    if norm != "none":
        raise ValueError(f"norm={norm}: each text is normalised alone. Type norm=none.")
    if width % heads:
        raise ValueError(f"backbone.width={width} cannot be divided by backbone.heads={heads}")


def distances(size: int, device: torch.device) -> Tensor:
    """For each place which of the biases each other place has, (size, size)."""
    places = torch.arange(size, device=device)
    return (places - places[:, None]).clamp(-REACH, REACH) + REACH


def neighbours(heads: int) -> list[int]:
    """Where each head looks first: the one after, the one before, and so on."""
    return [(head // 2 + 1) * (-1) ** head for head in range(heads)]


class Layer(nn.Module):
    """Attention and two linear layers, each with a LayerNorm before it and what came in added.

    Each head begins by looking at one of the places `first`, counted from its own.
    """

    def __init__(self, width: int, heads: int, first: list[int]) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.joint, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        bias = torch.zeros(heads, 2 * REACH + 1)
        for head, place in enumerate(first):
            bias[head, REACH + max(-REACH, min(place, REACH))] = NEAR
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor, far: Tensor, seen: Tensor) -> Tensor:
        """x (T, n, size, width); `seen`, as broad as (T, n, heads, size, size): which places each may look at."""
        parts = self.joint(self.before(x)).unflatten(-1, (3, self.heads, -1))  # (T, n, size, 3, heads, d)
        query, key, value = (part.transpose(2, 3) for part in parts.unbind(3))  # (T, n, heads, size, d)
        query = query / query.shape[-1] ** 0.5
        logits = query @ key.mT + self.bias[:, far]  # written out: derivatives of any order
        weights = logits.masked_fill(~seen, HIDDEN).softmax(-1)  # (T, n, heads, size, size)
        x = x + self.out((weights @ value).transpose(2, 3).flatten(3))
        return x + self.down(F.gelu(self.up(self.between(x))))
