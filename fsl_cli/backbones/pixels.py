"""No network: an image's own numbers, for methods that read images as they are; features that were made before."""

from __future__ import annotations

from torch import Tensor

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.mode import Mode


class Pixels(Backbone):
    """The image as a vector of channels * size * size numbers. Raises ValueError for a norm: there is none."""

    takes = ("images", "points", "embeddings")
    norms = ("none",)  # that it can be built with

    def __init__(self, channels: int, size: int, norm: Mode = "none") -> None:
        super().__init__()
        if norm != "none":
            raise ValueError(f"norm={norm}: there is nothing to normalise. Type norm=none.")
        self.norm = norm
        self.map_shape = (channels, size, size)
        self.out_features = channels * size * size
        self.block_channels = []

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        return x.flatten(2)
