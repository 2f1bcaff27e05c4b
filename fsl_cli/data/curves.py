"""Regression tasks: what their sources share.

A task is one curve, or a function of two variables, its shot the points to learn from.
The random numbers are the bytes of SHAKE-128 over (name, seed, split, index), so the episodes of a test are the same in
every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import shake_128
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fsl_cli.data.linear import Linear
from fsl_cli.data.sampler import Shape, largest, smallest
from fsl_cli.data.tasks import Batch, Tasks
from fsl_cli.errors import UserError

Uniform = np.ndarray[Any, np.dtype[np.float64]]


class CurveTasks(Tasks, Protocol):
    """Episodes of functions of one number or of two: x (T, n, inputs), y (T, n, 1)."""

    reach: float  # each number of x is in -reach..reach
    linear: Linear | None  # the best linear estimator, where targets are linear in known features

    def truth(self, batch: Batch, x: Tensor) -> Tensor:
        """The curves of `batch` at x (n, inputs): (T, n, 1)."""

    def best(self, batch: Batch, device: torch.device) -> list[float]:
        """Each task's mean negative log-likelihood, by the process that draws the curves; [] if unknown."""


class Curves(Protocol):
    """A source of such tasks."""

    inputs: int  # numbers of x

    @property
    def name(self) -> str:
        """As reports call it."""

    @property
    def hash(self) -> str:
        """Of images, if they are made of some."""

    @property
    def protocol(self) -> dict[str, str]:
        """What must stand beside every number."""

    def fingerprints(self, part: str) -> dict[str, str]:
        """None: there are no classes."""

    def tasks(self, shapes: dict[str, Shape]) -> CurveTasks:
        """Episodes of these shapes."""


def demand_points(name: str, shapes: Mapping[str, Shape], most: int, drawn: bool = False) -> None:
    """Raises UserError where episodes ask for points that tasks of `name` do not have: more than `most`, all that are
    left of infinitely many, or, unless theirs can be `drawn`, a range of shots.
    """
    for part, shape in shapes.items():
        prefix = "train_" if part == "train" else ""
        if shape.query == "all":
            raise UserError(f"{prefix}query=all: a curve of data={name} has no last point. Type {prefix}query=10.")
        if smallest(shape.shot) != largest(shape.shot) and not drawn:
            raise UserError(
                f"{prefix}shot={shape.shot}: the tasks of data={name} have all as many points. "
                f"Type {prefix}shot={largest(shape.shot)}, or data=gp, whose shots may be a range."
            )
        if (points := largest(shape.shot) + int(shape.query)) > most:
            raise UserError(
                f"{prefix}shot={shape.shot} and {prefix}query={shape.query} are {points:,} points; a task of "
                f"data={name} has {most:,} at most. Type {prefix}shot=10 {prefix}query=10."
            )


def uniform(name: str, seed: int, split: str, index: int, count: int) -> Uniform:
    """Numbers in 0..1 of one task."""
    digest = shake_128(f"{name}/{seed}/{split}/{index}".encode()).digest(8 * count)
    return np.frombuffer(digest, dtype="<u8") / 2.0**64
