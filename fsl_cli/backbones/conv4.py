"""The field's Conv4: four blocks of 3 x 3 convolution, norm, ReLU and halving (Vinyals et al. 2016, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby, pairwise
from typing import Annotated, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.backbones.compiled.block import Options, blocks, output_sizes, side_by_side
from fsl_cli.backbones.layers import channels_last, each_image
from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.norm import EPS, Norm
from fsl_cli.ranges import PartOf, Range, Rate


class Conv4(Backbone):
    """Four convolution blocks of `filters` channels each, or of one number for each block, on square images.

    `halve` = "pool": max-pooling after each block, the feature map flattened (Vinyals, Snell).
    `halve` = "stride": stride 2 instead of pooling, features averaged over what is left of the image
    (MAML on Omniglot: Finn et al. 2017, appendix A.1, and the authors' code).
    The first `halvings` blocks halve: 2 leaves relation networks maps to compare (Sung et al. 2018).
    Norms learn a scale where `norm_scale`, and add `norm_eps` to variances (MAML's authors: no scale, 1e-3).
    `slope` is that of the activation below zero; the first `unpadded` convolutions have no padding (Sung et al. 2018).
    `maximum`: features are each channel's maximum over the last map (FEAT's authors' code).
    """

    def __init__(
        self,
        channels: int,
        size: int,
        norm: Mode,
        filters: int | list[int] = 64,
        halve: Literal["pool", "stride"] = "pool",
        halvings: int = 4,
        maximum: bool = False,
        slope: PartOf = 0.0,
        unpadded: Annotated[int, Range(least=0, most=4)] = 0,
        norm_scale: bool = True,
        norm_eps: Rate = EPS,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.halve = halve
        widths = [filters] * 4 if isinstance(filters, int) else list(filters)
        if len(widths) != 4:
            raise ValueError(f"filters={widths} must be one number, or one for each of the 4 blocks")
        if halvings > 4:
            raise ValueError(f"halvings={halvings} must be 4 or less, as there are 4 blocks")
        if unpadded > 4:
            raise ValueError(f"unpadded={unpadded} must be 4 or less, as there are 4 blocks")
        if not 0 <= slope < 1:
            raise ValueError(f"slope={slope} must be from 0 to below 1")
        if norm_eps <= 0:
            raise ValueError(f"norm_eps={norm_eps} must be above 0")
        if maximum and halve == "stride":
            raise ValueError("maximum=true: with halve=stride, features are the map's mean")
        self.halvings = halvings
        self.maximum = maximum
        self.leaky = slope > 0
        self.activation = partial(F.leaky_relu, negative_slope=slope) if slope else F.relu
        strides = [2 if halve == "stride" and number < halvings else 1 for number in range(4)]
        # a bias in front of a norm has no effect
        convs = [
            nn.Conv2d(*ends, 3, stride, padding=int(number >= unpadded), bias=norm == "none")
            for number, (ends, stride) in enumerate(zip(pairwise([channels, *widths]), strides, strict=True))
        ]
        for conv in convs:
            nn.init.xavier_uniform_(conv.weight)
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(Norm(norm, width, norm_scale, norm_eps) for width in widths)
        self.block_channels = widths
        self.to(memory_format=torch.channels_last)  # faster on a CPU, most of all pooling
        side = _side(size, halvings if halve == "pool" else 0, unpadded)
        if side < 1:
            takes = next(pixels for pixels in range(1, 99) if _side(pixels, halvings, unpadded) > 0)
            raise ValueError(f"size={size} is too small to be halved {halvings} times; it takes {takes} pixels")
        self.map_shape = (widths[-1], 1, 1) if maximum or halve == "stride" else (widths[-1], side, side)
        self.out_features = math.prod(self.map_shape)

    @property
    def compiled(self) -> bool:  # type: ignore[override]
        return not self.leaky and all(norm.goes_with(conv) for conv, norm, _ in self._blocks())

    def _blocks(self) -> list[_Block]:
        parts = zip(cast("Iterable[nn.Conv2d]", self.convs), cast("Iterable[Norm]", self.norms), strict=True)
        return [_Block(*each, self.halve == "pool" and i < self.halvings) for i, each in enumerate(parts)]

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        x = each_image(channels_last, x)  # (T, n, C, H, W)
        for apart, group in groupby(enumerate(self._blocks()), lambda each: self.leaky or each[0] in changes):
            if not apart:
                x = _through([each for _, each in group], x, n_support)  # (T, n, filters, H/2, W/2)
                continue
            for number, (conv, norm, pool) in group:
                # changes come in front of the ReLU, and may as well after the pooling
                out = norm(each_image(conv, x), n_support, pool=pool)
                x = self.activation(changes[number](out) if number in changes else out)
        # (T, n, out_features)
        return x.amax((3, 4)) if self.maximum else x.mean((3, 4)) if self.halve == "stride" else x.flatten(2)


class _Block(NamedTuple):
    conv: nn.Conv2d
    norm: Norm
    pool: bool


def _through(some: Sequence[_Block], x: Tensor, n_support: int) -> Tensor:
    """relu(norm(conv(x))), pooled where a block is, of images (T, n, C, H, W), one block after the other.

    In one go where tasks go side by side.
    """
    for together, group in groupby(some, lambda each: side_by_side() and each.norm.goes_with(each.conv)):
        if together:
            x = _in_one_go(list(group), x, n_support)
            continue
        for conv, norm, pool in group:
            x = norm(each_image(conv, x), n_support, relu=True, pool=pool)
    return x


def _in_one_go(some: Sequence[_Block], x: Tensor, n_support: int) -> Tensor:
    if n_support and some[0].norm.mode == "transductive":
        return torch.cat([_in_one_go(some, part, 0) for part in (x[:, :n_support], x[:, n_support:])], 1)
    weights = [(conv.weight.permute(0, 2, 3, 1)[None], norm.weight[None], norm.bias[None]) for conv, norm, _ in some]
    options = [Options(norm.first(x, n_support), conv.stride[0], pool, norm.eps) for conv, norm, pool in some]
    y, stats = blocks(x.permute(0, 1, 3, 4, 2), weights, options)
    for (_, norm, _), own, sides in zip(some, stats, output_sizes(x.shape[3:], options), strict=True):
        if norm.mode == "running":
            norm.follow(own[:, 0], own[:, 1], x.shape[1] * math.prod(sides))
    return y.permute(0, 1, 4, 2, 3)


def _side(size: int, halvings: int, unpadded: int) -> int:
    """What four blocks leave of `size` pixels, rounded down each time; nothing or less where it is too small."""
    for number in range(4):
        size -= 2 * (number < unpadded)
        size = size // 2 if number < halvings else size
    return size
