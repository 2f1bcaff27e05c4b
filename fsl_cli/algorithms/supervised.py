"""Supervised pre-training: ordinary classification of all training classes, from batches cut as episodes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Episodes


class CosineHead(nn.Module):
    """scale * g_c * cos(x, w_c) for each class c, g_c a learned length (Chen et al. 2019, and the authors' code)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(features, classes, bias=False).weight.detach())
        self.length = nn.Parameter(self.weight.detach().norm(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) -> (..., classes)."""
        return cosine_scores(x, self.weight, self.length)


def cosine_scores(x: Tensor, weight: Tensor, length: Tensor) -> Tensor:
    """x (..., n, d), weight (..., classes, d), length (..., classes) -> (..., n, classes); scaled as the authors do."""
    scale = 2 if weight.shape[-2] <= 200 else 10
    rows = F.normalize(weight, dim=-1) * length.unsqueeze(-1)
    return scale * F.normalize(x, dim=-1) @ rows.mT


def all_images(episodes: Episodes) -> tuple[Tensor, Tensor]:
    """Support and query together, with the training split's own class numbers: (T, n + m, *item), (T, n + m)."""
    (support, y), (query, z) = episodes.support, episodes.query
    return torch.cat([support, query], 1), episodes.classes.gather(1, torch.cat([y, z], 1))


def supervised_loss(backbone: Backbone, head: nn.Module, episodes: Episodes) -> Tensor:
    """Cross-entropy of all images of the episodes with their classes in the training split."""
    x, y = all_images(episodes)
    return F.cross_entropy(head(backbone(x)).flatten(0, 1), y.flatten())
