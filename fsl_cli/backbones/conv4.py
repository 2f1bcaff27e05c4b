"""The field's Conv4: four blocks of 3 x 3 convolution, norm, ReLU and halving (Vinyals et al. 2016, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
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
        return not self.leaky and all(norm.goes_with(conv) for conv, norm in self._blocks())

    def _blocks(self) -> Iterable[tuple[nn.Conv2d, Norm]]:
        return cast("Iterable[tuple[nn.Conv2d, Norm]]", zip(self.convs, self.norms, strict=True))

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        x = each_image(channels_last, x)  # (T, n, C, H, W)
        for number, (conv, norm) in enumerate(self._blocks()):
            pool = self.halve == "pool" and number < self.halvings
            if number in changes:  # which come in front of the ReLU, and may as well after the pooling
                x = self.activation(changes[number](norm(each_image(conv, x), n_support, pool=pool)))
            elif self.leaky:
                x = self.activation(norm(each_image(conv, x), n_support, pool=pool))
            else:
                x = norm.after(conv, x, n_support, pool)  # (T, n, filters, H/2, W/2)
        # (T, n, out_features)
        return x.amax((3, 4)) if self.maximum else x.mean((3, 4)) if self.halve == "stride" else x.flatten(2)


def _side(size: int, halvings: int, unpadded: int) -> int:
    """What four blocks leave of `size` pixels, rounded down each time; nothing or less where it is too small."""
    for number in range(4):
        size -= 2 * (number < unpadded)
        size = size // 2 if number < halvings else size
    return size
