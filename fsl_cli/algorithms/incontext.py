"""Context-aware meta-learning, CAML (Fifty et al., ICLR 2024), https://arxiv.org/abs/2310.10971

A classifier that learns in context, as language models do: a transformer reads the frozen features of the support set
and of one query together, each beside a code of its label, and predicts the query's class. It is trained once, on many
tasks; a new task needs no gradient step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms import by_class
from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.sequence.order import Counts
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Examples
from fsl_cli.errors import UserError
from fsl_cli.ranges import Count


class InContext(Algorithm):
    """A transformer of `layers` with `heads` on tokens of `width` numbers, the last `code` of which are the label's.

    The backbone is frozen: `init=RUN` takes it from another run. Its features, each image's with mean 0 and
    deviation 1, enter through a linear layer (the paper takes CLIP's features without one). The codes are as far apart
    as possible, all at one distance; a query has a learned vector in place of a code. Tokens have no positions.
    """

    takes_features = True
    codes: Tensor

    def __init__(
        self,
        backbone: Backbone,
        way: Counts,
        width: Count = 256,
        code: Count = 64,
        layers: Count = 4,
        heads: Count = 8,
    ) -> None:
        super().__init__()
        self.way = way if isinstance(way, int) else way[1]
        if width % heads:
            fits = heads * (width // heads + 1)
            raise UserError(
                f"width={width} is shared out to heads={heads}, which must divide it. Type algo.width={fits}."
            )
        if not self.way <= code < width:
            raise UserError(
                f"code={code} must be less than width={width}, and at least {self.way}, the number of classes. "
                f"Type algo.code={self.way} algo.width={heads * (self.way // heads + 4)}, or more."
            )
        self.backbone = backbone.freeze()
        self.enter = nn.Linear(backbone.out_features, width - code)
        self.register_buffer("codes", equiangular(self.way, code))
        self.strength = nn.Parameter(torch.tensor(code**0.5))  # a code's numbers are then as large as features are
        self.unknown = nn.Parameter(torch.zeros(code))  # the query's
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.way))

    def adapt(self, support: Examples) -> Classifier:
        way = by_class.way(support)
        if way > self.way:
            raise UserError(
                f"This model has codes for {self.way} classes, and the episodes have {way}. Type way={self.way} or "
                f"less, or train with train_way={way}."
            )
        known = self._tokens(self.backbone(support.x), self.strength * self.codes[support.y])  # (T, n, width)

        def classify(x: Tensor) -> Tensor:
            features = self.backbone(x, support.x)
            queries = self._tokens(features, self.unknown.expand(*features.shape[:2], -1)).unsqueeze(2)
            sequences = torch.cat(
                [known.unsqueeze(1).expand(-1, x.shape[1], -1, -1), queries], 2
            )  # (T, m, n + 1, width)
            tokens = sequences.flatten(0, 1)
            for block in self.blocks:
                tokens = block(tokens)
            return self.leave(tokens[:, -1]).unflatten(0, x.shape[:2])[..., :way]

        return classify

    def _tokens(self, features: Tensor, codes: Tensor) -> Tensor:
        return torch.cat([self.enter(F.layer_norm(features, features.shape[-1:])), codes], -1)


def equiangular(way: int, width: int) -> Tensor:
    """`way` unit vectors (way, width), each two at an inner product of -1 / (way - 1).

    The corners of a simplex, rotated at random; a single one is a random unit vector.
    """
    turn = torch.linalg.qr(torch.randn(width, way)).Q.T  # (way, width), orthonormal
    if way == 1:
        return turn
    corners = (way / (way - 1)) ** 0.5 * (torch.eye(way) - 1 / way)
    return corners @ turn


class _Block(nn.Module):
    """Self-attention of all tokens (B, L, width) to all, then two layers on each; norms in front, as in ViT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.project(self.first(x)).unflatten(-1, (3, self.heads, -1))  # (B, L, 3, heads, width / heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        x = x + self.merge(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return x + self.think(self.second(x))
