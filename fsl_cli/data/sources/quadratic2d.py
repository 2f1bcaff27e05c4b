"""Quadratic functions of two variables, y = a u^2 + b v^2 + c u v + d u + e v + f (Hochreiter, Younger & Conwell 2001)

A task is one function, its shot the points to learn from; coefficients and inputs are uniform in -1..1. Six points fix
a function, and `linear` is the estimator that knows this and how coefficients are drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsl_cli.data.curves import demand_points, uniform
from fsl_cli.data.linear import Linear
from fsl_cli.data.sampler import Shape, largest
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import Episodes, Examples, Metric
from fsl_cli.ranges import Rate

COEFFICIENTS = 6
MOST = 100_000  # points of a task


class Quadratics(NamedTuple):
    """Functions whose coefficients are uniform in -largest..largest."""

    largest: float
    name: str = "quadratic2d"
    hash: str = "-"  # there are no images
    inputs: int = 2

    @property
    def protocol(self) -> dict[str, str]:
        """What must stand beside every number."""
        return {"split": f"coefficients up to {self.largest:g}", "split_hash": "-", "rotations": "none"}

    def fingerprints(self, part: str) -> dict[str, str]:
        """There are no classes that could be met again."""
        return {}

    def tasks(self, shapes: dict[str, Shape]) -> QuadraticTasks:
        """Episodes with as many points as the shapes have shots and queries."""
        demand_points(self.name, shapes, MOST)
        return QuadraticTasks(self, shapes)


class QuadraticTasks:
    """Episodes of functions: x (T, n, 2), y (T, n, 1)."""

    metric: Metric = "mse"
    reach = 1.0

    def __init__(self, functions: Quadratics, shapes: dict[str, Shape]) -> None:
        self.functions = functions
        self.shapes = shapes
        self.features: dict[str, Tensor] = {}
        covariance = functions.largest**2 / 3 * torch.eye(COEFFICIENTS, dtype=torch.float64)
        self.linear = Linear(monomials, torch.zeros(COEFFICIENTS, dtype=torch.float64), covariance)

    def gather(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> list[Episodes]:
        shape = self.shapes[batch.split]
        shot, query = largest(shape.shot), int(shape.query)
        random = self._random(batch, 2 * (shot + query)).to(device, dtype or torch.get_default_dtype())
        x = random[:, COEFFICIENTS:].unflatten(1, (-1, 2))  # (T, n + m, 2)
        y = self._values(random, x)
        classes, numbers = torch.zeros(len(x), 1, dtype=torch.long), torch.tensor(batch.index)
        support, query_set = Examples(x[:, :shot], y[:, :shot]), Examples(x[:, shot:], y[:, shot:])
        return [Episodes(support, query_set, classes.to(device), numbers.to(device))]

    def truth(self, batch: Batch, x: Tensor) -> Tensor:
        """The functions of `batch` at x (n, 2): (T, n, 1)."""
        return self._values(self._random(batch, 0).to(x), x.expand(len(batch.index), -1, -1))

    def best(self, batch: Batch, device: torch.device) -> list[float]:
        """Nothing: six points fix a function, so a predictor that knows the process has no uncertainty left."""
        return []

    def _random(self, batch: Batch, more: int) -> Tensor:
        """The coefficients of each task and `more` numbers, all in -1..1: (T, 6 + more)."""
        count = COEFFICIENTS + more
        drawn = [uniform(self.functions.name, batch.seed, batch.split, index, count) for index in batch.index]
        return torch.from_numpy(2 * np.stack(drawn) - 1)

    def _values(self, random: Tensor, x: Tensor) -> Tensor:
        return self.functions.largest * (monomials(x) @ random[:, :COEFFICIENTS, None])


def monomials(x: Tensor) -> Tensor:
    """u^2, v^2, u v, u, v and 1 of inputs (..., 2): (..., 6)."""
    u, v = x.unbind(-1)
    return torch.stack([u * u, v * v, u * v, u, v, torch.ones_like(u)], -1)


def quadratic2d(largest: Rate = 1.0) -> Quadratics:
    """The functions of the paper; `largest` is that of a coefficient."""
    return Quadratics(largest)
