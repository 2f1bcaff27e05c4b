"""Neural processes: from points to a distribution over curves, by one pass of a network

Conditional (Garnelo et al., ICML 2018), https://arxiv.org/abs/1807.01613, latent (Garnelo et al. 2018),
https://arxiv.org/abs/1807.01622, and attentive (Kim et al., ICLR 2019), https://arxiv.org/abs/1901.05761
Each point (x, y) of the support set is encoded. The codes are averaged, or the target's x attends to them, and from the
result a decoder predicts a mean and a deviation. With a latent variable, the points of one curve vary together.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.protonet import prototypes
from fsl_cli.algorithms.sequence.order import demand_way
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples, Normal, task_loss
from fsl_cli.errors import UserError
from fsl_cli.ranges import Count

LEAST = 0.1  # of the predicted deviation, and of the latent's


class NeuralProcess(Algorithm):
    """Layers of `hidden` units. `path` is the deterministic path: the mean of the points, attention to them, or none.

    `latent` adds a latent variable. In training it is drawn from its distribution given the queries; in evaluation it
    is the mean of its distribution given the support set (the second paper's conditional prior, and its code's loss).
    At least one of the two is needed. Only the first paper classifies: the means of the classes' features stand side by
    side, and the decoder says which of them a query belongs to. fsl itself sets `regression`.
    """

    regresses = True

    def __init__(
        self,
        backbone: Backbone,
        way: Count,
        hidden: Count = 128,
        path: Literal["mean", "attention", "none"] = "mean",
        latent: bool = False,
        heads: Count = 8,
        regression: bool = False,
    ) -> None:
        super().__init__()
        if path == "none" and not latent:
            raise UserError("Without a path and a latent variable, nothing is known of a task. Type algo.latent=true.")
        if not regression and (latent or path != "mean"):
            raise UserError(
                "A neural process with attention or a latent variable fits curves; classes are told apart by their "
                "means alone. Type algo=cnp, or a regression: data=gp."
            )
        self.backbone = backbone
        self.way = way
        d = backbone.out_features
        if not regression:
            self.decoder = mlp(d * (way + 1), hidden, hidden, way)
            return
        self.encoder = mlp(d + way, hidden, hidden, hidden, hidden) if path != "none" else None
        self.attention = _Attention(d, hidden, heads) if path == "attention" else None
        self.latent = _Latent(d + way, hidden) if latent else None
        known = hidden * ((path != "none") + latent)
        self.decoder = mlp(known + d, hidden, hidden, 2 * way)

    def adapt(self, support: Examples) -> Classifier:
        if not support.y.is_floating_point():
            demand_way(support, self.way)
            centres = prototypes(self.backbone(support.x), support.y)
            return lambda x: self._told_apart(self.backbone(x, support.x), centres)
        told = self.distribution(support)
        return lambda x: told(x).mean

    def distribution(self, support: Examples) -> Callable[[Tensor], Normal]:
        """What is known of a curve at any x: (T, m, *item) -> mean and deviation, (T, m, d) each."""
        points = self.backbone(support.x)
        z = self.latent(points, support.y).mean if self.latent else None
        return lambda x: self._decoded(self.backbone(x), points, support.y, z)

    def loss(self, episodes: Episodes) -> Tensor:
        """Minus the mean log-likelihood of support and query points; with a latent, plus its divergence a point."""
        support, query = episodes.support, episodes.query
        if not support.y.is_floating_point():
            demand_way(support, self.way)
            supports, queries = self.backbone.joint(support.x, query.x)
            centres = prototypes(supports, support.y)
            # the order in which classes stand means nothing: with each in every place, the decoder learns that sooner
            turned = [
                task_loss(self._told_apart(queries, centres.roll(turn, 1)), (query.y + turn) % self.way)
                for turn in range(self.way)
            ]
            return torch.stack(turned).mean(0)
        points, queries = self.backbone.joint(support.x, query.x)
        x, y = torch.cat([points, queries], 1), torch.cat([support.y, query.y], 1)
        if not self.latent:
            return -self._decoded(x, points, support.y, None).log_prob(y).sum(-1).mean()
        prior, posterior = self.latent(points, support.y), self.latent(x, y)
        z = posterior.mean + posterior.std * torch.randn_like(posterior.std)
        likely = self._decoded(x, points, support.y, z).log_prob(y).sum(-1)  # (T, n + m)
        return (posterior.divergence(prior).sum(-1) / y.shape[1] - likely.mean(-1)).mean()

    def _decoded(self, x: Tensor, points: Tensor, y: Tensor, z: Tensor | None) -> Normal:
        """The prediction at targets (T, m, d), from support points (T, n, d) with their y and a latent (T, hidden)."""
        known = []
        if self.encoder is not None:
            encoded = self.encoder(torch.cat([points, y], -1))
            found = self.attention(x, points, encoded) if self.attention else encoded.mean(1, keepdim=True)
            known.append(found.expand(-1, x.shape[1], -1))
        if z is not None:
            known.append(z.unsqueeze(1).expand(-1, x.shape[1], -1))
        mean, raw = self.decoder(torch.cat([*known, x], -1)).chunk(2, -1)
        return Normal(mean, LEAST + (1 - LEAST) * F.softplus(raw))

    def _told_apart(self, queries: Tensor, centres: Tensor) -> Tensor:
        """Logits (T, m, way) of queries (T, m, d), from the classes' means (T, way, d) side by side."""
        known = centres.flatten(1).unsqueeze(1).expand(-1, queries.shape[1], -1)
        return self.decoder(torch.cat([known, queries], -1))


class _Attention(nn.Module):
    """What each target reads of the points: keys and queries are made of x alone (Kim et al., section 3)."""

    def __init__(self, d: int, hidden: int, heads: int) -> None:
        super().__init__()
        if hidden % heads:
            fits = heads * (hidden // heads + 1)
            raise UserError(f"algo.hidden={hidden} cannot be divided by algo.heads={heads}. Type algo.hidden={fits}.")
        self.heads = heads
        self.embed = mlp(d, hidden, hidden)
        self.query, self.key, self.value, self.out = (nn.Linear(hidden, hidden) for _ in range(4))

    def forward(self, x: Tensor, points: Tensor, encoded: Tensor) -> Tensor:
        def several(layer: nn.Module, of: Tensor) -> Tensor:
            found: Tensor = layer(of).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (T, heads, n, d)
            return found

        query, key = several(self.query, self.embed(x)), several(self.key, self.embed(points))
        read = F.scaled_dot_product_attention(query, key, several(self.value, encoded))
        return self.out(read.transpose(1, 2).flatten(2))


class _Latent(nn.Module):
    """The distribution of a curve's latent variable, given some of its points."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.encoder = mlp(inputs, hidden, hidden, hidden, hidden)
        self.summary = nn.Linear(hidden, hidden)
        self.mean, self.raw = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, y: Tensor) -> Normal:
        summary = self.summary(self.encoder(torch.cat([x, y], -1)).mean(1)).relu()
        return Normal(self.mean(summary), LEAST + (1 - LEAST) * self.raw(summary).sigmoid())


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for ends in pairwise(widths):
        layers += [nn.Linear(*ends), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
