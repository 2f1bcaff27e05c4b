"""None of these: how a query of no class of the support set is told from the others, and how well that goes.

Three scores of logits over their temperature, all higher for what is known: the energy (Liu et al., NeurIPS 2020,
https://arxiv.org/abs/2010.03759), the largest logit, and the largest probability (Hendrycks and Gimpel, ICLR 2017,
https://arxiv.org/abs/1610.02136). For distances, the energy and the largest logit say how far the nearest class is, the
probability how much nearer than the next. Which one serves a method best is measured: the one with the largest area
under the ROC curve on validation episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

SCORES: dict[str, Callable[[Tensor], Tensor]] = {  # logits (n, way) over their temperature -> (n,)
    "energy": lambda logits: logits.logsumexp(-1),
    "logit": lambda logits: logits.amax(-1),
    "probability": lambda logits: logits.softmax(-1).amax(-1),
}
LEVELS = 201  # quantiles that are kept of the scores of known queries: each half a per cent
PRECISION = 40  # Newton steps at most


class OpenLogits(NamedTuple):
    """Logits of one episode's queries, and of pictures of none of its classes."""

    inside: Tensor  # (n, way)
    outside: Tensor  # (m, way)


class Unknown(NamedTuple):
    """How a run tells what it does not know."""

    score: str  # of SCORES
    auroc: float  # on the validation episodes that it was chosen by
    levels: list[float]  # quantiles 0, 0.005, ... 1 of the scores of known queries there
    slope: float  # the probability of being of no class, where half the pictures are, is
    intercept: float  # sigmoid(slope * score + intercept)


def score(name: str, logits: Tensor, temperature: float) -> Tensor:
    """How well known queries are: logits (n, way) -> (n,)."""
    return SCORES[name](logits.double() / temperature)


def fit_unknown(
    sides: Sequence[OpenLogits], temperature: float, names: Sequence[str] = tuple(SCORES)
) -> Unknown | None:
    """The best of these scores, and what its values mean; None where no episode has pictures of other classes."""
    both = [each for each in sides if len(each.inside) and len(each.outside)]
    if not both:
        return None
    found = {}
    for name in names:
        inside, outside = (
            torch.cat([score(name, part, temperature) for part in parts]) for parts in zip(*both, strict=True)
        )
        found[name] = (auroc(inside, outside), inside, outside)
    name = max(found, key=lambda name: found[name][0])
    area, inside, outside = found[name]
    return Unknown(name, area, levels_of(inside), *_logistic(inside, outside))


def levels_of(known: Tensor) -> list[float]:
    """Quantiles 0, 0.005, ... 1 of scores (n,), such that another known picture is below each with that probability.

    That is Weibull's kind of quantile; n scores cannot show what is rarer than one in n + 1: the first are the lowest.
    """
    return np.quantile(known.numpy(), np.linspace(0, 1, LEVELS), method="weibull").tolist()


def threshold(levels: Sequence[float], rate: float) -> float:
    """The score below which a picture is called unknown, so that a share `rate` of known ones is."""
    return float(np.interp(rate, np.linspace(0, 1, len(levels)), levels))


def auroc(inside: Tensor, outside: Tensor) -> float:
    """How often a known query has the higher score of two, one known and one not; a draw is half."""
    target = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).int()
    values = torch.cat([inside, outside])
    ranks = values.unique(return_inverse=True)[1].double()  # torchmetrics takes what is not within 0..1 for logits
    return float(binary_auroc(ranks / max(float(ranks.max()), 1.0), target))


def _logistic(inside: Tensor, outside: Tensor) -> tuple[float, float]:
    """Logistic regression of being outside on the score, both sides weighing one half (Platt 1999), by Newton's method.

    The score is standardised first, and a slight pull towards 0 keeps what separates perfectly finite.
    """
    x = torch.cat([inside, outside])
    target = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))]).double()
    weight = torch.where(target > 0, 0.5 / len(outside), 0.5 / len(inside))
    mean, spread = x.mean(), x.std().clamp(min=1e-12)
    design = torch.stack([(x - mean) / spread, torch.ones_like(x)], 1)
    pull = torch.eye(2).double() * 1e-3
    found = torch.zeros(2).double()
    for _ in range(PRECISION):
        p = (design @ found).sigmoid()
        gradient = design.T @ (weight * (p - target)) + pull @ found
        found = found - torch.linalg.solve((design.T * (weight * p * (1 - p))) @ design + pull, gradient)
    slope = float(found[0] / spread)
    return slope, float(found[1]) - slope * float(mean)
