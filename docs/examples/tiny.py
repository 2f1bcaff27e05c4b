"""A backbone for small images: two convolutions, and the mean of what they leave."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.layers import each_image
from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.norm import Norm


class Tiny(Backbone):
    """Two convolutions of `filters` channels, each halving the image."""

    def __init__(self, channels: int, size: int, norm: Mode, filters: int = 32) -> None:
        super().__init__()
        self.norm = norm
        ends = pairwise([channels, filters, filters])
        self.convs = nn.ModuleList(nn.Conv2d(*each, 3, stride=2, padding=1) for each in ends)
        self.norms = nn.ModuleList(Norm(norm, filters) for _ in self.convs)
        self.out_features, self.map_shape, self.block_channels = filters, (filters, 1, 1), [filters, filters]

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(each_image(conv, x), n_support)  # (T, n, filters, height / 2, width / 2)
            change = changes.get(number)
            x = F.relu(change(x) if change else x)
        return x.mean((3, 4))  # (T, n, filters)
