"""Sinusoids whose training inputs say which task they are of (Yin et al., ICLR 2020, section 6.1)

y = amplitude * sin x, with noise; beside x, in -5..5, each input has the code of the amplitude: one of so many numbers
is 1. Training tasks are the amplitudes of some codes, so a network can learn them by heart. In validation and test the
amplitude is any, and the code, one of those that were trained, is drawn without regard to it, as in the authors'
notebook: only the points to learn from tell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsl_cli.data.curves import demand_points, uniform
from fsl_cli.data.sampler import Shape, largest
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import Episodes, Examples, Metric
from fsl_cli.ranges import Rate

REACH = 5.0  # x is in -REACH..REACH
CODES = 20
TRAINED = 16  # the first of them
LOW, HIGH = 0.1, 4.0  # amplitudes
MOST = 100_000  # points of a task


class CodedSinusoids(NamedTuple):
    """Curves with an amplitude of LOW..HIGH, which the code of a training task names."""

    noise: float  # deviation of each y
    name: str = "sinusoid_coded"
    hash: str = "-"  # there are no images
    inputs: int = 1 + CODES

    @property
    def protocol(self) -> dict[str, str]:
        """What must stand beside every number."""
        return {"split": f"amplitude {LOW}..{HIGH} noise {self.noise:g}", "split_hash": "-", "rotations": "none"}

    def fingerprints(self, part: str) -> dict[str, str]:
        """There are no classes that could be met again."""
        return {}

    def tasks(self, shapes: dict[str, Shape]) -> CodedTasks:
        """Episodes with as many points as the shapes have shots and queries."""
        demand_points(self.name, shapes, MOST)
        return CodedTasks(self, shapes)


class CodedTasks:
    """Episodes of curves: x (T, n, 1 + CODES), y (T, n, 1)."""

    metric: Metric = "mse"
    reach = REACH
    linear = None

    def __init__(self, curves: CodedSinusoids, shapes: dict[str, Shape]) -> None:
        self.curves = curves
        self.shapes = shapes
        self.features: dict[str, Tensor] = {}

    def gather(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> list[Episodes]:
        """The episodes of `batch` on `device`, all of one shape (default: torch's dtype)."""
        shape = self.shapes[batch.split]
        shot, points = largest(shape.shot), largest(shape.shot) + int(shape.query)
        random = self._random(batch, 2 * points).to(device, dtype or torch.get_default_dtype())
        amplitude, code = self._curve(batch.split, random)
        place = (2 * random[:, 2 : 2 + points, None] - 1) * REACH  # (T, n + m, 1)
        noise = torch.special.ndtri(random[:, 2 + points :, None].clamp(1e-6, 1 - 1e-6))
        x = torch.cat([place, code.expand(-1, points, -1)], -1)
        y = amplitude * place.sin() + self.curves.noise * noise
        classes, numbers = torch.zeros(len(x), 1, dtype=torch.long), torch.tensor(batch.index)
        support, query_set = Examples(x[:, :shot], y[:, :shot]), Examples(x[:, shot:], y[:, shot:])
        return [Episodes(support, query_set, classes.to(device), numbers.to(device))]

    def truth(self, batch: Batch, x: Tensor) -> Tensor:
        """The curves of `batch` at x (n, 1 + CODES), without noise: (T, n, 1)."""
        amplitude, _ = self._curve(batch.split, self._random(batch, 0).to(x))
        return amplitude * x[:, :1].sin()

    def best(self, batch: Batch, device: torch.device) -> list[float]:
        """Nothing: it is not worked out."""
        return []

    def _random(self, batch: Batch, more: int) -> Tensor:
        drawn = [uniform(self.curves.name, batch.seed, batch.split, index, 2 + more) for index in batch.index]
        return torch.from_numpy(np.stack(drawn))

    def _curve(self, split: str, random: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitude (T, 1, 1) and code (T, 1, CODES) of each task, from its first two numbers."""
        first, second = random[:, 0, None, None], random[:, 1]
        number = (second * TRAINED).long()
        share = number.to(random)[:, None, None] / (CODES - 1) if split == "train" else first
        amplitude = LOW + (HIGH - LOW) * share
        return amplitude, torch.nn.functional.one_hot(number, CODES).to(random).unsqueeze(1)


def sinusoid_coded(noise: Rate = 0.1) -> CodedSinusoids:
    """The regression tasks of the paper; `noise` is the deviation of each y."""
    return CodedSinusoids(noise)
