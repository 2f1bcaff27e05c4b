"""ResNet-18 and its like of basic blocks (He et al., CVPR 2016, table 1), https://arxiv.org/abs/1512.03385

Two 3 x 3 convolutions learn what to add to a block's input. Few-shot papers take it as it is, on images of 224 (Chen et
al. 2019), or on those of 84 without its first two halvings (Wang et al. 2019, SimpleShot): `stem` = "3x3".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.layers import Shortcut, channels_last, conv, each_image, flat
from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.norm import Norm


class ResNet(Backbone):
    """Stages of `blocks` basic blocks each, of `filters` channels, from the second on halving the image first.

    `stem` = "7x7": a convolution of stride 2 and max-pooling, as He et al.; "3x3": a convolution that halves nothing.
    Features are the last map's mean, or all of it where not `average`.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        norm: Mode,
        filters: list[int] | None = None,
        blocks: list[int] | None = None,
        stem: Literal["7x7", "3x3"] = "7x7",
        average: bool = True,
    ) -> None:
        super().__init__()
        widths, counts = filters or [64, 128, 256, 512], blocks or [2, 2, 2, 2]
        if len(widths) != len(counts) or min(counts) < 1:
            raise ValueError(f"filters={widths} and blocks={counts} must be a number each for every stage")
        self.norm = norm
        self.stem = stem
        self.average = average
        self.first = conv(channels, widths[0], *((7, 2) if stem == "7x7" else (3, 1)), bias=norm == "none")
        self.first_norm = Norm(norm, widths[0])
        made: list[_Block] = []
        self.block_channels = []
        for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
            for block in range(count):
                before = self.block_channels[-1] if made else width
                made.append(_Block(before, width, 2 if stage and not block else 1, norm))
                self.block_channels.append(width)
        self.blocks = nn.ModuleList(made)
        self.to(memory_format=torch.channels_last)
        for _ in range(len(widths) - 1 + 2 * (stem == "7x7")):
            size = math.ceil(size / 2)
        self.map_shape = (widths[-1], 1, 1) if average else (widths[-1], size, size)
        self.out_features = math.prod(self.map_shape)

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        x = self.first_norm(each_image(self.first, each_image(channels_last, x)), n_support, relu=True)
        if self.stem == "7x7":
            x = each_image(lambda maps: F.max_pool2d(maps, 3, 2, padding=1), x)  # (T, n, width, H / 4, W / 4)
        for number, block in enumerate(self.blocks):
            x = block(x, n_support, changes.get(number))
        return flat(x, self.average)


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, norm: Mode) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1, self.norm1 = conv(channels, width, 3, stride, bias), Norm(norm, width)
        self.conv2, self.norm2 = conv(width, width, 3, 1, bias), Norm(norm, width)
        self.projects = channels != width or stride > 1  # otherwise what comes in fits as it is
        if self.projects:
            self.shortcut, self.shortcut_norm = Shortcut(channels, width, stride, bias), Norm(norm, width)

    def forward(self, x: Tensor, n_support: int, change: Callable[[Tensor], Tensor] | None) -> Tensor:
        rest = self.shortcut_norm(each_image(self.shortcut, x), n_support) if self.projects else x
        x = self.norm1(each_image(self.conv1, x), n_support, relu=True)
        x = self.norm2(each_image(self.conv2, x), n_support) + rest
        return F.relu(change(x) if change else x)
