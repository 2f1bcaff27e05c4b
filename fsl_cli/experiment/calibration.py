"""Probabilities that mean what they say (Guo et al., ICML 2017), https://arxiv.org/abs/1706.04599

Logits are divided by one number, the temperature that makes the labels of validation episodes most probable. No
accuracy changes, as the order of a query's logits does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

BINS = 15  # of confidence, as Guo et al.
STEPS = 60  # halvings of an interval of log-temperatures: down to rounding
WIDEST = 30.0  # the temperature lies within exp(-30) to exp(30) times the logits' spread


class Judged(NamedTuple):
    """Queries of episodes of one way, one after another."""

    logits: Tensor  # (n, way)
    y: Tensor  # (n,)


class Bin(NamedTuple):
    """Predictions of about the same confidence."""

    share: float  # of all predictions
    confidence: float  # mean probability of what was predicted
    accuracy: float


def fit_temperature(judged: Sequence[Judged]) -> float:
    """The temperature with the least negative log-likelihood of the labels; 1 where the logits say nothing.

    n labels cannot show that an error is rarer than one in n + 2: the labels are softened by as much (Platt 1999), or
    the temperature of a method that made no error in validation would be 0.
    """
    known = [Judged(each.logits.detach().double(), each.y) for each in judged if len(each.y)]
    spreads = [each.logits.std(-1, correction=0).mean() for each in known]
    if not known or not all(spread.isfinite() for spread in spreads) or not any(spread > 0 for spread in spreads):
        return 1.0
    doubt = 1 / (sum(len(each.y) for each in known) + 2)
    spread = float(torch.stack(spreads).mean())
    low, high = -WIDEST, WIDEST  # of the log of the inverse temperature in units of the spread
    for _ in range(STEPS):
        middle = (low + high) / 2
        if _slope(known, torch.tensor(middle).double().exp() / spread, doubt) > 0:
            high = middle
        else:
            low = middle
    return spread * float(torch.tensor(-(low + high) / 2).double().exp())


def _slope(judged: Sequence[Judged], inverse: Tensor, doubt: float) -> float:
    """The derivative of the negative log-likelihood by the inverse temperature, in which it is convex."""
    total = 0.0
    for logits, y in judged:
        way = logits.shape[1]
        target = F.one_hot(y, way) * (1 - doubt * way / (way - 1)) + doubt / (way - 1)
        total += float((((logits * inverse).softmax(-1) - target) * logits).sum())
    return total


def nll(judged: Sequence[Judged], temperature: float = 1.0) -> float:
    """The mean negative log-likelihood of the labels."""
    losses = [F.cross_entropy(logits.double() / temperature, y, reduction="none") for logits, y in judged]
    return float(torch.cat(losses).mean())


def calibration_error(judged: Sequence[Judged], temperature: float = 1.0) -> float:
    """The expected calibration error: by how much confidence and accuracy differ, over bins of confidence."""
    widest = max(each.logits.shape[1] for each in judged)
    shares = [F.pad((logits.double() / temperature).softmax(-1), (0, widest - logits.shape[1])) for logits, _ in judged]
    y = torch.cat([each.y for each in judged])
    return float(multiclass_calibration_error(torch.cat(shares), y, widest, n_bins=BINS))


def reliability(judged: Sequence[Judged], temperature: float = 1.0) -> list[Bin]:
    """The bins of confidence that hold predictions, from unsure to sure."""
    tops = [(logits.double() / temperature).softmax(-1).max(-1) for logits, _ in judged]
    confidence = torch.cat([top.values for top in tops])
    right = torch.cat([top.indices == y for top, (_, y) in zip(tops, judged, strict=True)]).double()
    number = (confidence * BINS).ceil().long().clamp(1, BINS)
    bins = [number == i for i in range(1, BINS + 1)]
    return [
        Bin(float(own.double().mean()), float(confidence[own].mean()), float(right[own].mean()))
        for own in bins
        if own.any()
    ]
