"""Wide residual networks, WRN-28-10 at first (Zagoruyko and Komodakis, BMVC 2016), https://arxiv.org/abs/1605.07146

Blocks that normalise and activate in front of each of their two convolutions, few of them and each ten times as wide as
ResNet's. Few-shot papers took it over from LEO (Rusu et al. 2019) and S2M2 (Mangla et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.layers import Shortcut, channels_last, conv, each_image, flat
from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.norm import Norm
from fsl_cli.ranges import PartOf


class WideResNet(Backbone):
    """WRN-`depth`-`widen`: after a stem of `filters` channels three groups of (depth - 4) / 6 blocks, the later two
    halving the image first, of `widen` times 1, 2 and 4 times as many channels.

    In training, the share `dropout` of the numbers between a block's convolutions is zero. Features are the last
    map's mean, or all of it where not `average`. An algorithm's changes act in front of a block's last ReLU, which
    is in its middle: behind its end stands the next block's norm, which would take a scale or shift back.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        norm: Mode,
        depth: int = 28,
        widen: int = 10,
        filters: int = 16,
        dropout: PartOf = 0.0,
        average: bool = True,
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth={depth} must be 6 blocks + 4, such as 10, 16, 28 or 40")
        self.norm = norm
        self.average = average
        self.drops = dropout > 0
        groups = [filters * widen * times for times in (1, 2, 4)]
        self.block_channels = [width for width in groups for _ in range((depth - 4) // 6)]
        self.first = conv(channels, filters, bias=norm == "none")
        made: list[_Block] = []
        for before, width in pairwise([filters, *self.block_channels]):
            made.append(_Block(before, width, 2 if made and before != width else 1, norm, dropout))
        self.blocks = nn.ModuleList(made)
        self.last_norm = Norm(norm, groups[-1])
        self.to(memory_format=torch.channels_last)
        side = math.ceil(math.ceil(size / 2) / 2)
        self.map_shape = (groups[-1], 1, 1) if average else (groups[-1], side, side)
        self.out_features = math.prod(self.map_shape)

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        x = each_image(self.first, each_image(channels_last, x))
        for number, block in enumerate(self.blocks):
            x = block(x, n_support, changes.get(number))
        return flat(self.last_norm(x, n_support, relu=True), self.average)


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, norm: Mode, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = Norm(norm, channels), conv(channels, width, 3, stride, norm == "none")
        self.norm2, self.conv2 = Norm(norm, width), conv(width, width, 3, 1, norm == "none")
        self.projects = channels != width  # otherwise what comes in fits as it is
        if self.projects:
            self.shortcut = Shortcut(channels, width, stride, norm == "none")
        self.dropout = dropout

    def forward(self, x: Tensor, n_support: int, change: Callable[[Tensor], Tensor] | None) -> Tensor:
        ready = self.norm1(x, n_support, relu=True)
        rest = each_image(self.shortcut, ready) if self.projects else x
        x = self.norm2(each_image(self.conv1, ready), n_support, relu=change is None)
        if change:
            x = F.relu(change(x))
        x = F.dropout(x, self.dropout, self.training)
        return each_image(self.conv2, x) + rest
