"""Quadratic functions to minimise, f(theta) = |W theta - y|^2, W and y Gaussian (Andrychowicz et al. 2016, section 3.1)

https://arxiv.org/abs/1606.04474
A task is one function, written as a regression without bias: its points are the rows of W, their targets y, and theta
are the weights. Points and targets are multiplied by the root of their number, so a mean squared error is f(theta)
itself. What is asked is f, not what was not seen: the queries are the same points.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from fsl_cli.data.curves import demand_points, uniform
from fsl_cli.data.sampler import Shape, largest
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import Episodes, Examples, Metric
from fsl_cli.errors import UserError
from fsl_cli.ranges import Count

MOST = 2_000  # rows, each of them a support point and a query


class Quadratics(NamedTuple):
    """Functions of so many variables."""

    inputs: int
    name: str = "quadratics"
    hash: str = "-"  # there are no images

    @property
    def protocol(self) -> dict[str, str]:
        """What must stand beside every number."""
        return {"split": f"Gaussian, {self.inputs} variables", "split_hash": "-", "rotations": "none"}

    def fingerprints(self, part: str) -> dict[str, str]:
        """There are no classes that could be met again."""
        return {}

    def tasks(self, shapes: dict[str, Shape]) -> QuadraticsTasks:
        """Episodes whose W has as many rows as the shapes have shots. Raises UserError for other queries than these."""
        demand_points(self.name, shapes, 2 * MOST)
        for part, shape in shapes.items():
            prefix = "train_" if part == "train" else ""
            if shape.query != largest(shape.shot):
                raise UserError(
                    f"{prefix}query={shape.query}: a task of data={self.name} is asked for the points that it is of. "
                    f"Type {prefix}query={largest(shape.shot)}."
                )
        return QuadraticsTasks(self, shapes)


class QuadraticsTasks:
    """Episodes of functions: x (T, rows, variables), y (T, rows, 1)."""

    metric: Metric = "mse"
    reach = 0.0  # functions of so many variables are not drawn
    linear = None

    def __init__(self, functions: Quadratics, shapes: dict[str, Shape]) -> None:
        self.functions = functions
        self.shapes = shapes
        self.features: dict[str, Tensor] = {}

    def gather(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> list[Episodes]:
        rows, columns = largest(self.shapes[batch.split].shot), self.functions.inputs + 1
        drawn = [
            uniform(self.functions.name, batch.seed, batch.split, index, rows * columns).clip(1e-12, 1 - 1e-12)
            for index in batch.index
        ]
        normal = torch.from_numpy(ndtri(np.stack(drawn))).to(device, dtype or torch.get_default_dtype())
        points = math.sqrt(rows) * normal.view(-1, rows, columns)
        same = Examples(points[..., :-1], points[..., -1:])
        classes, numbers = torch.zeros(len(points), 1, dtype=torch.long), torch.tensor(batch.index)
        return [Episodes(same, same, classes.to(device), numbers.to(device))]

    def truth(self, batch: Batch, x: Tensor) -> Tensor:
        raise UserError("A function of so many variables is no curve, and no picture of a fit is drawn.")

    def best(self, batch: Batch, device: torch.device) -> list[float]:
        """Nothing: the least of f is no likelihood."""
        return []


def quadratics(variables: Count = 10) -> Quadratics:
    """Functions as the paper's: of 10 variables; as many rows as there are shots."""
    return Quadratics(variables)
