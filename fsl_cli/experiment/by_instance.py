"""What a sequence learner says of the first, second, … instance of a class, before its label is shown.

As Santoro et al. 2016 count: of the first instance of a class, all that is known is which classes it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.stats import mean_interval


def instances(y: Tensor) -> Tensor:
    """Which instance of its class each of a sequence is, from 0: labels (T, L) -> (T, L)."""
    seen = F.one_hot(y).cumsum(1)  # (T, L, way)
    return seen.gather(-1, y.unsqueeze(-1)).squeeze(-1) - 1


def scores(said: Tensor, y: Tensor) -> Tensor:
    """A score of each task for each instance that all its classes have, (T, K): the share of the classes it was right.

    In regression, the squared error at each place of the sequence, (T, L).
    """
    if y.is_floating_point():
        return (said - y).square().double().mean(-1)
    right, which = (said.argmax(-1) == y).double(), instances(y)
    way = int(y.max()) + 1
    least = int(F.one_hot(y, way).sum(1).min())
    return torch.stack([(right * (which == k)).sum(1) / way for k in range(least)], 1)


def first_at_most(way: int) -> float:
    """How often a first instance can be right at best in tasks of as many images of each class: H_way / way.

    A guess among the classes not yet seen is right once in `way` at the first class, once in way - 1 at the second, and
    always at the last. A higher score means that a label was shown too early.
    """
    return sum(1 / left for left in range(1, way + 1)) / way


def summary(rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The mean of each instance over the episodes, and half the width of its 95% interval."""
    spreads = [mean_interval(list(column)) for column in zip(*rows, strict=False)]
    return {"mean": [each[0] for each in spreads], "interval": [each[1] for each in spreads]}
