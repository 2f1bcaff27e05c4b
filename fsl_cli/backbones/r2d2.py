"""R2-D2's network (Bertinetto et al., ICLR 2019, section 4.2), https://arxiv.org/abs/1805.08136, and the authors' code.

Four blocks, wider from one to the next, of 3 x 3 convolution, norm, max-pooling and leaky ReLU, in this order. Features
are the maps of the last two blocks together: ridge regression has a use for many.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.layers import channels_last, conv, each_image
from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.norm import Norm
from fsl_cli.ranges import PartOf


class R2D2Net(Backbone):
    """Blocks of `filters` channels on square images; the first three halve them.

    The fourth block, and what is taken of the third, pool over 2 x 2 pixels at every pixel, so that both have one size.
    In training the share `dropout` of the third and the fourth block's output is zero.
    """

    def __init__(
        self, channels: int, size: int, norm: Mode, filters: list[int] | None = None, dropout: PartOf = 0.0
    ) -> None:
        super().__init__()
        widths = filters or [96, 192, 384, 512]
        if len(widths) != 4:
            raise ValueError(f"filters={widths} must be one number for each of the 4 blocks")
        side = size // 8 - 1  # after halving three times, rounded down each time, and pooling at every pixel
        if side < 1:
            raise ValueError(f"size={size} is too small to be halved three times and pooled; it takes 16 pixels")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must be a share from 0 to below 1")
        self.norm = norm
        self.dropout = dropout
        self.drops = dropout > 0
        self.convs = nn.ModuleList(conv(*ends, bias=norm == "none") for ends in pairwise([channels, *widths]))
        self.norms = nn.ModuleList(Norm(norm, width) for width in widths)
        self.to(memory_format=torch.channels_last)
        self.block_channels = widths
        self.map_shape = (sum(widths[2:]), side, side)
        self.out_features = math.prod(self.map_shape)

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        x, taken = each_image(channels_last, x), []  # (T, n, C, H, W)
        for number, (layer, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = _pool(norm(each_image(layer, x), n_support), 1 if number == 3 else 2)
            x = F.leaky_relu(changes[number](x) if number in changes else x, 0.1)
            if number >= 2:
                x = F.dropout(x, self.dropout, self.training)
                taken.append(_pool(x, 1) if number == 2 else x)
        return torch.cat(taken, 2).flatten(2)  # (T, n, out_features)


def _pool(x: Tensor, stride: int) -> Tensor:
    return each_image(lambda maps: F.max_pool2d(maps, 2, stride), x)
