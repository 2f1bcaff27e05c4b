"""Curves drawn from a Gaussian process with a squared exponential kernel (Garnelo et al. 2018a; Kim et al. 2019)

https://arxiv.org/abs/1807.01613, https://arxiv.org/abs/1901.05761
x is uniform in -2..2. Nobody can predict the curves better than the process that draws them: `best` is its own
negative log-likelihood, and no learner's mean lies below it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from fsl_cli.data.curves import Uniform, demand_points, uniform
from fsl_cli.data.sampler import Shape, largest, smallest
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import Episodes, Examples, Metric
from fsl_cli.errors import UserError
from fsl_cli.ranges import Rate

REACH = 2.0
MOST = 5_000  # points of a task, whose covariances are then 200 MB
LEAST_NOISE = 1e-5  # of the largest scale: with less, rounding decides what a curve is


class Process(NamedTuple):
    """Kernels whose length and scale are uniform in these ranges, with independent noise on each point."""

    length: tuple[float, float]
    scale: tuple[float, float]
    noise: float
    name: str = "gp"
    hash: str = "-"  # there are no images
    inputs: int = 1

    @property
    def protocol(self) -> dict[str, str]:
        ranges = [f"{low:g}" if low == high else f"{low:g}..{high:g}" for low, high in (self.length, self.scale)]
        return {
            "split": f"length {ranges[0]} scale {ranges[1]} noise {self.noise:g}",
            "split_hash": "-",
            "rotations": "none",
        }

    def fingerprints(self, part: str) -> dict[str, str]:
        return {}

    def tasks(self, shapes: dict[str, Shape]) -> ProcessTasks:
        """Episodes with as many points as the shapes have shots, which may be a range, and queries."""
        demand_points(self.name, shapes, MOST, drawn=True)
        return ProcessTasks(self, shapes)


class ProcessTasks:
    """Episodes of curves: x (T, n, 1), y (T, n, 1)."""

    metric: Metric = "mse"
    reach = REACH

    def __init__(self, process: Process, shapes: dict[str, Shape]) -> None:
        self.process = process
        self.shapes = shapes
        self.features: dict[str, Tensor] = {}
        self.linear = None

    def gather(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> list[Episodes]:
        alike: dict[int, list[tuple[int, Uniform, Uniform]]] = {}
        for index in batch.index:
            n, x, y = self._drawn(batch, index)
            alike.setdefault(n, []).append((index, x, y))
        return [self._side_by_side(n, drawn, device, dtype) for n, drawn in alike.items()]

    def truth(self, batch: Batch, x: Tensor) -> Tensor:
        """The curves of `batch` at x (n, 1), with the noise that points have: (T, n, 1)."""
        places = x.flatten().double().cpu().numpy()
        drawn = [self._drawn(batch, index, places)[2][-len(places) :] for index in batch.index]
        return torch.from_numpy(np.stack(drawn)).unsqueeze(-1).to(x)

    def best(self, batch: Batch, device: torch.device) -> list[float]:
        """The mean negative log-likelihood of each task's queries, each alone, given its support set and kernel."""
        found = []
        for index in batch.index:
            n, x, y = self._drawn(batch, index)
            covariance = self._covariance(x, *self._kernel(self._random(batch, index, 3)))
            known = np.linalg.solve(covariance[:n, :n], np.concatenate([covariance[:n, n:], y[:n, None]], 1))
            mean = covariance[n:, :n] @ known[:, -1]
            variance = np.diag(covariance)[n:] - np.einsum("mn,nm->m", covariance[n:, :n], known[:, :-1])
            each = 0.5 * (np.log(2 * math.pi * variance) + (y[n:] - mean) ** 2 / variance)
            found.append(float(each.mean()))
        return found

    def _drawn(self, batch: Batch, index: int, more: Uniform | None = None) -> tuple[int, Uniform, Uniform]:
        """How many points a task has to learn from, then x and y of these, of its queries, and of `more` places."""
        shape = self.shapes[batch.split]
        most, query = largest(shape.shot), int(shape.query)
        extra = 0 if more is None else len(more)
        random = self._random(batch, index, 3 + 2 * (most + query) + extra)
        low = smallest(shape.shot)
        n = min(most, low + int(random[0] * (most - low + 1)))
        count = n + query
        x = (2 * random[3 : 3 + count] - 1) * REACH
        normal = ndtri(random[3 + most + query :][: count + extra].clip(1e-12, 1 - 1e-12))
        places = x if more is None else np.concatenate([x, more])
        try:
            root = np.linalg.cholesky(self._covariance(places, *self._kernel(random)))
        except (np.linalg.LinAlgError, MemoryError) as error:
            raise UserError(
                f"data=gp: {len(places):,} points with data.noise={self.process.noise:g} cannot be drawn: "
                f"{str(error)[:80]}. Type fewer shots and queries, or more noise, such as data.noise=0.02."
            ) from error
        return n, places, root @ normal  # the first points do not see the last

    def _random(self, batch: Batch, index: int, count: int) -> Uniform:
        return uniform(self.process.name, batch.seed, batch.split, index, count)

    def _kernel(self, random: Uniform) -> tuple[float, float]:
        """Length and scale of a task, from its second and third number."""
        ranges = (self.process.length, self.process.scale)
        length, scale = (low + (high - low) * float(random[i]) for i, (low, high) in enumerate(ranges, 1))
        return length, scale

    def _covariance(self, x: Uniform, length: float, scale: float) -> Uniform:
        squares = (x[:, None] - x[None]) ** 2
        return scale**2 * np.exp(-squares / (2 * length**2)) + self.process.noise**2 * np.eye(len(x))

    def _side_by_side(
        self, n: int, drawn: list[tuple[int, Uniform, Uniform]], device: torch.device, dtype: torch.dtype | None
    ) -> Episodes:
        def tensor(rows: list[Uniform]) -> Tensor:
            return torch.from_numpy(np.stack(rows)).unsqueeze(-1).to(device, dtype or torch.get_default_dtype())

        x, y = tensor([each[1] for each in drawn]), tensor([each[2] for each in drawn])
        index = torch.tensor([each[0] for each in drawn], device=device)
        classes = torch.zeros(len(drawn), 1, dtype=torch.long, device=device)
        return Episodes(Examples(x[:, :n], y[:, :n]), Examples(x[:, n:], y[:, n:]), classes, index)


def gp(
    length_low: Rate = 0.4, length_high: Rate = 0.4, scale_low: Rate = 1.0, scale_high: Rate = 1.0, noise: Rate = 0.02
) -> Process:
    """The curves of the neural process papers. Raises ValueError when a range is upside down, or noise too small."""
    if length_low > length_high or scale_low > scale_high:
        raise ValueError("the low end of each range must not be above its high end")
    if noise < LEAST_NOISE * scale_high:
        raise ValueError(f"with so little noise rounding decides; type data.noise={LEAST_NOISE * scale_high:g} or more")
    return Process((length_low, length_high), (scale_low, scale_high), noise)
