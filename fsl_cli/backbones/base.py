"""What every backbone offers: features of images, normalised as its norm's mode says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fsl_cli.backbones.mode import Mode

if TYPE_CHECKING:
    from typing_extensions import Self

# Number of a block, from 0 -> what is done to its output (T, n, channels, H, W) in front of its last ReLU.
Changes = Mapping[int, Callable[[Tensor], Tensor]]
NO_CHANGES: Changes = MappingProxyType({})


class Backbone(nn.Module, ABC):
    """Images to feature vectors, with the episode axis: (T, n, C, H, W) -> (T, n, out_features).

    Subclasses set `norm`, `out_features`, `map_shape` and `block_channels`, and build their norms from
    `backbones.norm`.
    """

    takes: tuple[str, ...] = (
        "images",
    )  # what an item may be: images, texts (code points), points of curves, embeddings (numbers, 1, 1)
    precomputed = False  # True: what comes in are features already, of shape (T, n, out_features), and goes out again
    norm: Mode
    out_features: int
    map_shape: tuple[int, int, int]  # (channels, height, width) that the features are a flat view of
    block_channels: Sequence[int]  # what each block gives to the next
    frozen = False
    finetune = 0  # steps on each support set in a test, of a copy: see algorithms/finetuning.py
    compiled = False  # whether tasks that each have weights of their own go through it side by side, in compiled blocks
    origin = ""  # what its first weights have seen: ImageNet, or a file's name where that is not known; "": nothing
    drops = False  # whether training drops something at random
    progress = 1.0  # share of the training that is done; the learner sets it before each step
    of_names: Callable[[Sequence[str]], Tensor] | None = None  # class rows (n, k) of n names, by a text tower beside it
    pixels: tuple[Sequence[float], Sequence[float]] | None = None  # mean and std that images were scaled by, if known

    @abstractmethod
    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        """The features of x; of its n images the first n_support are the support set (0: all are one set)."""

    def forward(self, x: Tensor, support: Tensor | None = None, changes: Changes = NO_CHANGES) -> Tensor:
        """The features of x (T, n, C, H, W) alone, of shape (T, n, out_features).

        x is a set of its own, or, where `support` (T, k, C, H, W) is given, the queries that belong to it.
        By `changes` an algorithm reaches into the blocks, to modulate one, say.
        """
        if self.precomputed:
            return x
        if support is None or self.norm != "support":
            return self.features(x, 0, changes)
        k = support.shape[1]
        return self.features(torch.cat([support, x], 1), k, changes)[:, k:]

    def joint(self, support: Tensor, query: Tensor, changes: Changes = NO_CHANGES) -> tuple[Tensor, Tensor]:
        """The features of both sets in one pass: in training, mode `running` takes its statistics over both."""
        if self.precomputed:
            return support, query
        k = support.shape[1]
        features = self.features(torch.cat([support, query], 1), k, changes)
        return features[:, :k], features[:, k:]

    def freeze(self) -> Self:
        """Keep all weights and statistics as they are from now on; returns itself.

        Parameters get no gradient, and the network stays in evaluation mode, whatever `train` is told. What an inner
        loop does to its own copies of the weights is left to the algorithm.
        """
        self.frozen = True
        self.requires_grad_(False)
        self.eval()
        return self

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not self.frozen)
