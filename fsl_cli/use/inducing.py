"""Kernel inducing points: a few items from which kernel regression learns what it learns from many.

Nguyen, Chen, Lee, "Dataset Meta-Learning from Kernel Ridge-Regression", ICLR 2021, https://arxiv.org/abs/2011.00050.
The kernel is that of infinitely wide networks with fully connected layers and ReLU, trained by gradient descent (the
neural tangent kernel; Jacot 2018, Lee 2019), with the authors' variances: 2 of weights, 0.01 of biases.
All in float64: the few items' kernel matrix is nearly singular.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

WEIGHTS, BIASES = 2.0, 0.01  # variances
RIDGE = 1e-6  # of the mean of the diagonal
TARGETS = 5000  # items that a step is judged by
ALMOST_ONE = 1 - 1e-9  # a cosine; the slope of arccos is infinite at 1, where it has no say


class Taught(NamedTuple):
    """Items that teach, (n, d), and what the kernel regression takes for their labels, (n, classes)."""

    x: Tensor
    y: Tensor


def kernel(x: Tensor, z: Tensor, layers: int = 1) -> Tensor:
    """The neural tangent kernel (n, m) of items x (n, d) and z (m, d) under `layers` hidden layers.

    s is the covariance of the outputs of a layer at the start, and the tangent kernel sums over layers what each one's
    weights add. Cho and Saul 2009 have both integrals of ReLU in closed form.
    """
    d = x.shape[1]
    s = WEIGHTS / d * x @ z.T + BIASES
    s_x, s_z = (WEIGHTS / d * each.square().sum(1) + BIASES for each in (x, z))
    tangent = s
    for _ in range(layers):
        size = torch.outer(s_x.sqrt(), s_z.sqrt())
        cosine = (s / size).clamp(-ALMOST_ONE, ALMOST_ONE)
        angle = cosine.arccos()
        s = WEIGHTS / 2 * size * (angle.sin() + (math.pi - angle) * cosine) / math.pi + BIASES
        tangent = s + WEIGHTS / 2 * tangent * (math.pi - angle) / math.pi
        s_x, s_z = (WEIGHTS / 2 * each + BIASES for each in (s_x, s_z))
    return tangent


def predicted(taught: Taught, x: Tensor, layers: int = 1) -> Tensor:
    """What kernel regression on the items that teach says of items x (m, d): (m, classes)."""
    return kernel(x, taught.x, layers) @ torch.linalg.solve(_regularised(taught.x, layers), taught.y)


def loss(taught: Taught, targets: Taught, layers: int = 1) -> Tensor:
    """Half the mean squared distance between what is said of the targets and their labels."""
    return (targets.y - predicted(taught, targets.x, layers)).square().sum(1).mean() / 2


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (n) as (n, classes), each row with the sum 0: regression has no constant."""
    return torch.nn.functional.one_hot(labels, classes).to(torch.float64) - 1 / classes


def labels_solved(taught: Taught, targets: Taught, layers: int = 1) -> Taught:
    """The same items with those labels for which the loss is least: least squares."""
    through = torch.linalg.solve(_regularised(taught.x, layers), kernel(taught.x, targets.x, layers)).T
    return taught._replace(y=torch.linalg.lstsq(through, targets.y).solution)


def distilled(
    start: Taught, targets: Taught, steps: int, lr: float, bounds: tuple[float, float] | None, seed: int,
    layers: int = 1, told: Callable[[int, float], object] = lambda step, loss: None,
) -> Taught:  # fmt: skip
    """The items that teach after `steps` of Adam on the loss, from `start`; labels stay.

    Each step is judged by TARGETS of the targets, drawn by `seed`. `bounds` are the least and greatest that a number
    of an item may be, so that a picture stays one. `told` is called with each step and its loss.
    """
    x = start.x.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=lr)
    dice = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        some = targets
        if len(targets.x) > TARGETS:
            chosen = torch.randperm(len(targets.x), generator=dice)[:TARGETS]
            some = Taught(targets.x[chosen], targets.y[chosen])
        value = loss(Taught(x, start.y), some, layers)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if bounds:
            x.data.clamp_(*bounds)
        told(step, value.item())
    return Taught(x.detach(), start.y)


def _regularised(x: Tensor, layers: int) -> Tensor:
    own = kernel(x, x, layers)
    return own + RIDGE * own.diagonal().mean() * torch.eye(len(x), dtype=x.dtype)
