"""From scores of support images to scores of classes, of however many images each."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fsl_cli.episodes import Examples


def way(support: Examples) -> int:
    """How many classes a support set has."""
    return int(support.y.max()) + 1


def way_advice(way: int, found: int) -> str:
    """What to type where a model has room for `way` classes, and `found` were met."""
    return f"Type way={way} (fsl predict: a support set of {way} classes), or train with way={found}."


def best_of_each_class(scores: Tensor, y: Tensor, way: int) -> Tensor:
    """The largest score among each class's support images: (T, m, n), labels (T, n) -> (T, m, way)."""
    none = scores.new_full((*scores.shape[:2], way), -float("inf"))
    return none.scatter_reduce(2, _for_each_query(y, scores), scores, "amax")


def log_sum_of_each_class(scores: Tensor, y: Tensor, way: int) -> Tensor:
    """log(sum(exp(score))) over each class's support images, for scores of any size: shapes as above."""
    best = best_of_each_class(scores.detach(), y, way)  # taken out of the exponentials and put back: no gradient
    below = scores - best.gather(2, _for_each_query(y, scores))  # (T, m, n), 0 at most
    return (below.exp() @ F.one_hot(y, way).to(scores.dtype)).log() + best


def _for_each_query(y: Tensor, scores: Tensor) -> Tensor:
    return y.unsqueeze(1).expand_as(scores)
