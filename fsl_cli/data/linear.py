"""The best linear estimator: what can be known of targets that are linear in known features of their inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fsl_cli.episodes import Examples

NOTHING_NEW = 1e-9  # of a target's variance before any example: below it, its value is known already


class Linear(NamedTuple):
    """Targets y = weights * features(x), by the mean and the covariance of the weights over all tasks.

    Of Gaussian weights no estimator has a smaller mean squared error; of others, no linear one.
    """

    features: Callable[[Tensor], Tensor]  # (..., d) -> (..., F)
    mean: Tensor  # (F,) float64
    covariance: Tensor  # (F, F) float64

    def sequence(self, examples: Examples) -> Tensor:
        """What is expected of each target from those before it: (T, L, 1)."""
        return self._learned(examples)[0].unsqueeze(-1)

    def estimate(self, support: Examples, x: Tensor) -> Tensor:
        """What is expected at x (T, m, d) from a support set: (T, m, 1)."""
        weights = self._learned(support)[1]
        return (self.features(x.double()) @ weights.unsqueeze(-1)).to(x)

    def _learned(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """Each target as it is expected, (T, L), and the weights after all, (T, F): recursive least squares."""
        features, y = self.features(examples.x.double()), examples.y.double().squeeze(-1)  # (T, L, F), (T, L)
        weights = self.mean.to(features).expand(len(features), -1)
        unknown = self.covariance.to(features).expand(len(features), -1, -1)
        said, first = list[Tensor](), torch.einsum("tlf,fg,tlg->tl", features, self.covariance.to(features), features)
        for place in range(features.shape[1]):
            row = features[:, place]
            said.append((row * weights).sum(-1))
            along = (unknown @ row.unsqueeze(-1)).squeeze(-1)
            variance = (row * along).sum(-1)
            new = variance > NOTHING_NEW * first[:, place]
            gain = torch.where(new, 1 / variance.where(new, torch.ones_like(variance)), 0.0).unsqueeze(-1) * along
            weights = weights + gain * (y[:, place] - said[-1]).unsqueeze(-1)
            unknown = unknown - gain.unsqueeze(-1) * along.unsqueeze(-2)
        return torch.stack(said, 1), weights
