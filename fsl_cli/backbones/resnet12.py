"""ResNet-12 as in MetaOptNet (Lee et al., CVPR 2019, section 4.1), https://arxiv.org/abs/1904.03758

Four blocks of three 3 x 3 convolutions beside a 1 x 1 shortcut, each halving the image; wide, shallow and, against
overfitting, with dropout behind the first two blocks and DropBlock behind the others. It descends from SNAIL's and
TADAM's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.layers import channels_last, conv, drop_block, each_image, flat
from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.norm import Norm
from fsl_cli.ranges import Count, PartOf, Share


class ResNet12(Backbone):
    """Blocks of `filters` channels on square images; features are the last map, or its mean where `average`.

    In training, the share `drop_rate` of each block's output is zero: single numbers behind the first two blocks,
    squares of `drop_size` pixels behind the others, whose share grows from nothing during the first `drop_ramp` of
    the training.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        norm: Mode,
        filters: list[int] | None = None,
        average: bool = False,
        drop_rate: PartOf = 0.1,
        drop_size: Count = 5,
        drop_ramp: Share = 1 / 3,
    ) -> None:
        super().__init__()
        widths = filters or [64, 160, 320, 640]
        if len(widths) != 4:
            raise ValueError(f"filters={widths} must be one number for each of the 4 blocks")
        side = size // 16  # after four times halving, rounded down each time
        if not side:
            raise ValueError(f"size={size} is too small to be halved four times; it takes 16 pixels")
        self.norm = norm
        self.average = average
        self.drop_rate, self.drop_size, self.drop_ramp = drop_rate, drop_size, drop_ramp
        self.drops = drop_rate > 0
        self.blocks = nn.ModuleList(_Block(*ends, norm) for ends in pairwise([channels, *widths]))
        self.to(memory_format=torch.channels_last)
        self.block_channels = widths
        self.map_shape = (widths[-1], 1, 1) if average else (widths[-1], side, side)
        self.out_features = math.prod(self.map_shape)

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        x = each_image(channels_last, x)
        for number, block in enumerate(self.blocks):
            x = self._dropped(block(x, n_support, changes.get(number)), number)  # (T, n, width, H / 2, W / 2)
        return flat(x, self.average)

    def _dropped(self, x: Tensor, number: int) -> Tensor:
        if not (self.training and self.drops):
            return x
        if number < 2:
            return F.dropout(x, self.drop_rate)
        grown = min(1.0, self.progress / self.drop_ramp) if self.drop_ramp else 1.0
        return drop_block(x, self.drop_rate * grown, self.drop_size)


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, norm: Mode) -> None:
        super().__init__()
        ends = [(channels, width), (width, width), (width, width)]
        self.convs = nn.ModuleList(conv(*pair, bias=norm == "none") for pair in ends)
        self.norms = nn.ModuleList(Norm(norm, width) for _ in ends)
        self.shortcut = conv(channels, width, 1, bias=norm == "none")
        self.shortcut_norm = Norm(norm, width)

    def forward(self, x: Tensor, n_support: int, change: Callable[[Tensor], Tensor] | None) -> Tensor:
        rest = self.shortcut_norm(each_image(self.shortcut, x), n_support)
        for number, (layer, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(each_image(layer, x), n_support)
            if number < 2:
                x = F.leaky_relu(x, 0.1)
        # theirs pools behind the activation, which increases, so that the outcome is the same for four times the work
        x = each_image(lambda maps: F.max_pool2d(maps, 2), x + rest)
        return F.leaky_relu(change(x) if change else x, 0.1)
