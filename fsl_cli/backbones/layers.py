"""What the convolutional backbones share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(channels: int, width: int, size: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """size x size convolution that keeps the image's size (at stride 1), first weights as He et al. 2015 by fan-out.

    Raises ValueError for one without channels.
    """
    if width < 1:
        raise ValueError(f"a convolution of {width} channels; it must have at least 1")
    layer = nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    return layer


class Shortcut(nn.Module):
    """1 x 1 convolution of every `stride`-th pixel (n, C, H, W), to fit a block's input to its output.

    The same as a convolution of that stride, but for torch 2.15 on a CPU: there the gradient of such a convolution
    writes past the end of its memory where the format is channels-last and the channels are few (4 to 6, say).
    """

    def __init__(self, channels: int, width: int, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.conv = conv(channels, width, 1, bias=bias)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[:, :, :: self.stride, :: self.stride])


def each_image(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer for images (n, C, H, W) on those of T episodes, (T, n, C, H, W)."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def flat(x: Tensor, average: bool) -> Tensor:
    """Feature maps (T, n, C, H, W) as vectors: (T, n, C) averaged over the image, else (T, n, C * H * W)."""
    return x.mean((3, 4)) if average else x.flatten(2)


def channels_last(x: Tensor) -> Tensor:
    """Images (n, C, H, W) in that memory format by their strides too, which torch leaves alone where C = 1.

    oneDNN goes by the strides; by others it takes five times as long for the first layer's gradient.
    """
    return x.permute(0, 2, 3, 1).flatten(2).unflatten(2, (x.shape[3], x.shape[1])).permute(0, 3, 1, 2)


def drop_block(x: Tensor, rate: float, size: int) -> Tensor:
    """DropBlock (Ghiasi et al. 2018, algorithm 1): squares of maps (T, n, C, H, W) are zero, the rest is scaled up.

    About the share `rate` of all goes, in squares of `size` pixels, no larger than the map. As MetaOptNet's, and
    torchvision's, which takes odd sizes only and not `torch.func.vmap`. Each episode is scaled by what is left of it.
    """
    height, width = x.shape[-2:]
    size = min(size, height, width)
    places = (height - size + 1) * (width - size + 1)
    corners = torch.rand_like(x[..., size - 1 :, size - 1 :]) < rate * height * width / (size**2 * places)
    corners = F.pad(corners.to(x.dtype), [size - 1] * 4)  # (T, n, C, H + size - 1, W + size - 1)
    kept = 1 - each_image(lambda corner: F.max_pool2d(corner, size, stride=1), corners)  # (T, n, C, H, W)
    return x * kept / kept.mean((1, 2, 3, 4), keepdim=True).clamp(min=1e-6)
