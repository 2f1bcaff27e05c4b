"""Sinusoids: regress y = amplitude * sin(x - phase) from a few points (Finn et al. 2017, section 5.1); drawn, not read.

A task is one curve, its shot the points to learn from, x uniform in -5..5.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsl_cli.data.curves import demand_points, uniform
from fsl_cli.data.linear import Linear
from fsl_cli.data.sampler import Shape, largest
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import Episodes, Examples, Metric

REACH = 5.0  # x is in -REACH..REACH
MOST = 100_000  # points of a task


class Sinusoids(NamedTuple):
    """Curves with an amplitude and a phase uniform in these ranges."""

    amplitude: tuple[float, float]
    phase: tuple[float, float]
    name: str = "sinusoid"
    hash: str = "-"  # there are no images
    inputs: int = 1

    @property
    def protocol(self) -> dict[str, str]:
        """What must stand beside every number."""
        ranges = "amplitude {}..{} phase {}..{}".format(*self.amplitude, *(round(p, 4) for p in self.phase))
        return {"split": ranges, "split_hash": "-", "rotations": "none"}

    def fingerprints(self, part: str) -> dict[str, str]:
        """There are no classes that could be met again."""
        return {}

    def tasks(self, shapes: dict[str, Shape]) -> SinusoidTasks:
        """Episodes with as many points as the shapes have shots and queries."""
        demand_points(self.name, shapes, MOST)
        return SinusoidTasks(self, shapes)


class SinusoidTasks:
    """Episodes of curves: x (T, n, 1), y (T, n, 1)."""

    metric: Metric = "mse"
    reach = REACH

    def __init__(self, curves: Sinusoids, shapes: dict[str, Shape]) -> None:
        self.curves = curves
        self.shapes = shapes
        self.features: dict[str, Tensor] = {}
        self.linear = Linear(_waves, *_moments(curves.amplitude, curves.phase))

    def gather(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> list[Episodes]:
        """The episodes of `batch` on `device`, all of one shape (default: torch's dtype)."""
        shape = self.shapes[batch.split]
        shot, query = largest(shape.shot), int(shape.query)
        drawn = np.stack(
            [uniform("sinusoid", batch.seed, batch.split, index, 2 + shot + query) for index in batch.index]
        )
        random = torch.from_numpy(drawn).to(device, dtype or torch.get_default_dtype())  # (T, 2 + n + m)
        amplitude, phase = self._curve(random)
        x = (2 * random[:, 2:, None] - 1) * REACH
        y = amplitude * torch.sin(x - phase)
        classes, numbers = torch.zeros(len(x), 1, dtype=torch.long), torch.tensor(batch.index)
        support, query_set = Examples(x[:, :shot], y[:, :shot]), Examples(x[:, shot:], y[:, shot:])
        return [Episodes(support, query_set, classes.to(device), numbers.to(device))]

    def truth(self, batch: Batch, x: Tensor) -> Tensor:
        """The curves of `batch` at x (n, 1): (T, n, 1)."""
        drawn = np.stack([uniform("sinusoid", batch.seed, batch.split, index, 2) for index in batch.index])
        amplitude, phase = self._curve(torch.from_numpy(drawn).to(x))
        return amplitude * torch.sin(x - phase)

    def best(self, batch: Batch, device: torch.device) -> list[float]:
        """Nothing: two points fix a curve, so whatever knows how they are drawn makes no error."""
        return []

    def _curve(self, random: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitude and phase of each task, (T, 1, 1), from its first two numbers."""
        ranges = (self.curves.amplitude, self.curves.phase)
        first, second = (low + (high - low) * random[:, i, None, None] for i, (low, high) in enumerate(ranges))
        return first, second


def _waves(x: Tensor) -> Tensor:
    """sin x and cos x, in which every curve is linear: (..., 1) -> (..., 2)."""
    return torch.cat([x.sin(), x.cos()], -1)


def _moments(amplitude: tuple[float, float], phase: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of A cos p and -A sin p, for an amplitude A and a phase p uniform in these ranges."""
    (low, high), (first, last) = amplitude, phase
    one, two = (low + high) / 2, (low * low + low * high + high * high) / 3  # E A, E A^2
    span, double = last - first, math.sin(2 * last) - math.sin(2 * first)
    cos, sin = (math.sin(last) - math.sin(first)) / span, (math.cos(first) - math.cos(last)) / span
    both = (math.sin(last) ** 2 - math.sin(first) ** 2) / 2 / span
    mean = one * torch.tensor([cos, -sin], dtype=torch.float64)
    squares = [[0.5 + double / 4 / span, -both], [-both, 0.5 - double / 4 / span]]
    return mean, two * torch.tensor(squares, dtype=torch.float64) - torch.outer(mean, mean)


def sinusoid(
    amplitude_low: float = 0.1, amplitude_high: float = 5.0, phase_low: float = 0.0, phase_high: float = math.pi
) -> Sinusoids:
    """The regression tasks of the MAML paper. Raises ValueError when a range is empty."""
    if not (amplitude_low < amplitude_high and phase_low < phase_high):
        raise ValueError("the low end of each range must be below its high end")
    return Sinusoids((amplitude_low, amplitude_high), (phase_low, phase_high))
