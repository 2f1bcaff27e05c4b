"""Free Lunch: distribution calibration (Yang, Liu, Xu, ICLR 2021), https://arxiv.org/abs/2101.06395

A support image's class is taken to be spread as the training classes nearest to it are: features are drawn from a
normal distribution with a mean and a covariance borrowed from these, and logistic regression learns from all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.by_class import way
from fsl_cli.algorithms.solvers.logistic import logistic_regression
from fsl_cli.algorithms.supervised import supervised_loss
from fsl_cli.backbones.base import Backbone
from fsl_cli.episodes import Classifier, Episodes, Examples
from fsl_cli.errors import UserError
from fsl_cli.ranges import Count, Natural, Range, Rate, Weight

AT_ONCE = 64  # images through the backbone
LARGEST = 8 << 30  # bytes of all covariances


class FreeLunch(Algorithm):
    """Tukey's transform x ** `power` of the features, which must not be negative; 1 leaves them as they are.

    A support vector's mean is that of itself and the means of its `nearest` training classes, its covariance the mean
    of theirs, plus `spread` in every entry. `samples` features are drawn for each class, with one set of random numbers
    for all support vectors, so that their order does not matter. `penalty` is C of the logistic regression. As in the
    authors' code, training classes are described by features that are not transformed.
    """

    takes_features = True
    means: Tensor
    roots: Tensor

    def __init__(
        self, backbone: Backbone, train_classes: int, power: Annotated[float, Range(above=0, most=1)] = 0.5,
        nearest: Count = 2, spread: Weight = 0.21, samples: Natural = 750, penalty: Rate = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        d = backbone.out_features
        if 4 * train_classes * d * d > LARGEST:
            raise UserError(
                f"The covariances of {train_classes:,} training classes, of {d:,} features, take "
                f"{4e-9 * train_classes * d * d:.0f} GB. Take a backbone with fewer features, or algo=simpleshot."
            )
        self.backbone = backbone
        self.head = nn.Linear(d, train_classes)
        self.power, self.nearest, self.spread = power, nearest, spread
        self.samples, self.penalty = samples, penalty
        self.register_buffer("means", torch.zeros(train_classes, d))
        self.register_buffer("roots", torch.zeros(train_classes, d, d))  # R with the covariance R^T R

    def prepare_classes(self, classes: Iterable[Tensor]) -> None:
        """Means and covariances of the features of all training classes."""
        for number, images in enumerate(classes):
            features = torch.cat([self.backbone(piece.unsqueeze(0))[0] for piece in images.split(AT_ONCE)])  # (n, d)
            self.means[number], root = features.mean(0), covariance_root(features)
            self.roots[number].zero_()[: len(root)] = root

    def adapt(self, support: Examples) -> Classifier:
        if self.power != 1 and (self.backbone(support.x) < 0).any():
            raise UserError(
                "Features below 0 have no power of a fraction (Tukey's transform), and these have some: type "
                "algo.power=1, or take features behind a ReLU."
            )
        known = self.embed(support.x)
        count = self.samples * way(support) // known.shape[1]
        solved = [self._solved(*each, count) for each in zip(known, support.y, strict=True)]
        weight, bias = (torch.cat(parts) for parts in zip(*solved, strict=True))
        return lambda x: (self.embed(x, support.x).double() @ weight + bias).to(known.dtype)

    def loss(self, episodes: Episodes) -> Tensor:
        """The loss of a classifier of all training classes."""
        return supervised_loss(self.backbone, self.head, episodes)

    def embed(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """The backbone's features, transformed."""
        features = self.backbone(x, support)
        return features if self.power == 1 else features.clamp(min=0) ** self.power

    def _solved(self, x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Weights and bias for support features (n, d), labels (n,), and `count` drawn ones for each of them."""
        all_of = torch.cat([x.unsqueeze(1), self.drawn(x, count)], 1)  # (n, 1 + count, d)
        return logistic_regression(all_of.flatten(0, 1)[None], y.repeat_interleave(1 + count)[None], self.penalty)

    def drawn(self, x: Tensor, count: int) -> Tensor:
        """`count` features drawn for each of x, (n, d) -> (n, count, d)."""
        k, d = min(self.nearest, len(self.means)), x.shape[1]
        near = torch.cdist(x, self.means).topk(k, largest=False).indices  # (n, k)
        mean = (self.means[near].sum(1) + x) / (k + 1)
        dice = torch.Generator().manual_seed(0)
        noise = torch.randn(count, k * d + 1, generator=dice, dtype=torch.float64).to(x)
        along = noise[:, :-1] @ self.roots[near].flatten(1, 2) / k**0.5  # (n, count, d), of the mean covariance
        return mean.unsqueeze(1) + along + self.spread**0.5 * noise[:, -1:]


def covariance_root(features: Tensor) -> Tensor:
    """R, upper triangular, whose R^T R is the covariance of features (n, d): (min(n, d), d)."""
    centred = (features - features.mean(0)) / max(len(features) - 1, 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R
