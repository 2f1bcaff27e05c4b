"""The shapes that data and algorithms agree on, written down once.

T is the episode axis (T episodes side by side, a meta-batch), n and m count support and query images,
`item` is the shape of one input: (channels, height, width) for images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Metric = Literal["accuracy", "mse", "bits"]  # of classes, of a regression, of characters
IGNORED = -100  # the label of what is not judged, or of a support image without label; as torch's cross-entropy has it


class Examples(NamedTuple):
    """Inputs and their labels."""

    x: Tensor  # (T, n, *item) float
    y: Tensor  # (T, n) labels 0..way-1; in regression (T, n, d) targets; of characters (T, n, size) symbols

    def in_order(self, places: Tensor) -> Examples:
        """The examples that stand at these places (T, k), each episode's in an order of its own."""
        rows = torch.arange(len(places), device=places.device)[:, None]
        return Examples(self.x[rows, places], self.y[rows, places])

    def labelled(self) -> Examples:
        """Those of known class; all tasks have them at the same places."""
        known = self.y[0] != IGNORED
        return Examples(self.x[:, known], self.y[:, known])


class Episodes(NamedTuple):
    """T episodes: learn from `support`, be judged on `query`."""

    support: Examples
    query: Examples
    classes: Tensor  # (T, way) the data set's own class numbers behind the labels
    index: Tensor  # type: ignore[assignment]  # (T,) which episode of (seed, split) each one is
    class_rows: Tensor | None = None  # (T, way, k) what is known of a class besides its images: attributes, or its name


Classifier = Callable[[Tensor], Tensor]  # (T, m, *item) -> logits (T, m, way); in regression predictions (T, m, d)


class Normal(NamedTuple):
    """Independent normal distributions, such as of a regression's targets."""

    mean: Tensor
    std: Tensor

    def log_prob(self, y: Tensor) -> Tensor:
        return -0.5 * ((y - self.mean) / self.std).square() - self.std.log() - 0.5 * math.log(2 * math.pi)

    def divergence(self, other: Normal) -> Tensor:
        """The Kullback-Leibler divergence from another, number by number."""
        ratio = (self.std / other.std).square()
        return 0.5 * (ratio + ((self.mean - other.mean) / other.std).square() - 1 - ratio.log())


def task_loss(predicted: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits (..., n, way) with labels (..., n); in regression mean squared error of (..., n, d).

    Labels that are IGNORED do not count.
    """
    if y.is_floating_point():
        return F.mse_loss(predicted, y)
    return F.cross_entropy(predicted.flatten(0, -2), y.flatten())
