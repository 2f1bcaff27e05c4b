"""Random crops, flips and colours of many images at once, on their device, each image with its own.

Chen et al. 2019, "A Closer Look at Few-shot Classification", https://arxiv.org/abs/1904.04232: what transfer
recipes train with. torchvision draws one set of parameters per call and from torch's generator; here all numbers
are the bytes of SHAKE-128, as in sampler.py, so that an augmented run too resumes and divides among processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import shake_128
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.ranges import Count, Range, Share

COUNT = 8  # numbers of an image, used or not: area, ratio, left, top, flip, brightness, contrast, saturation
RATIOS = (math.log(3 / 4), math.log(4 / 3))  # of a crop's width to its height, as torchvision
GREY = (0.2989, 0.587, 0.114)  # how much red, green and blue count, as torchvision


@dataclass(frozen=True)
class Augment:
    """What to draw for each image. Raises ValueError for values out of range.

    crop: the smallest share of the image's area that a random crop keeps before it is resized to the whole,
        such as 0.08; None: no crop. padding: in its place, a crop of the image's size from the image with so many
        black pixels on each side, such as 8. flip: half of the images left-right. jitter: brightness, contrast and
        saturation each times a factor within 1 - jitter to 1 + jitter, such as 0.4.
    """

    crop: Annotated[float, Range(above=0, most=1)] | None = None
    padding: Count | None = None
    flip: bool = False
    jitter: Share = 0.0

    def __post_init__(self) -> None:
        if self.crop is not None and not 0 < self.crop <= 1:
            raise ValueError(f"crop={self.crop} must be a share of the area above 0, up to 1, such as 0.08, or null")
        if self.padding is not None and self.padding < 1:
            raise ValueError(f"padding={self.padding} must be at least 1 pixel, such as 8, or null")
        if self.crop is not None and self.padding is not None:
            raise ValueError(f"crop={self.crop} and padding={self.padding} both crop; one of them must be null")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter={self.jitter} must be from 0 to 1, such as 0.4")

    def apply(self, pixels: Tensor, uniform: Tensor) -> Tensor:
        """Images (N, 1 or 3, H, W) in 0..1, float32 or float64, changed as `uniform` (N, COUNT) of `numbers` says.

        Crops are torchvision's RandomResizedCrop(antialias=False), but drawn without its retries: the area is
        uniform, and the ratio log-uniform among those with which a box of this area fits into the image. With padding
        they are its RandomCrop(size, padding).
        Colours are ColorJitter's, in the order brightness, contrast, saturation, which is that of Chen et al.
        """
        flipped = uniform[:, 4] < 0.5 if self.flip else torch.zeros_like(uniform[:, 4], dtype=torch.bool)  # (N,)
        if self.crop is not None and self.crop < 1:
            pixels = _resize(pixels, boxes(self.crop, uniform, *pixels.shape[2:]), flipped)
        elif self.padding is not None:
            pixels = _shift(pixels, self.padding, uniform, flipped)
        elif self.flip:  # exact, and three times as fast as resampling
            pixels = torch.where(flipped.view(-1, 1, 1, 1), pixels.flip(3), pixels)
        return recolour(pixels, 1 + self.jitter * (2 * uniform[:, 5:] - 1)) if self.jitter else pixels


def numbers(seed: int, split: str, index: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Uniform in [0, 1) for `count` images of episode `index`: (count, COUNT). More images change no earlier row."""
    raw = shake_128(f"{seed}/{split}/{index}/augment".encode()).digest(8 * COUNT * count)
    # 24 bits: what float32 holds, so that a device without float64 gets the same numbers and never a 1
    return (np.frombuffer(raw, dtype="<u8") >> 40).reshape(count, COUNT) / 2.0**24


def boxes(smallest: float, uniform: Tensor, height: int, width: int) -> Tensor:
    """Crops of at least `smallest` of the area, in whole pixels: (4, N) left, top, width and height."""
    area = (smallest + (1 - smallest) * uniform[:, 0]) * (height * width)  # (N,) in pixels
    fits = (area / height**2).log(), (width**2 / area).log()  # least and greatest log ratio with which the box fits
    low, high = (torch.minimum(fits[0].clamp(min=bound), fits[1]) for bound in RATIOS)
    ratio = (low + (high - low) * uniform[:, 1]).exp()
    sizes = torch.stack(((area * ratio).sqrt(), (area / ratio).sqrt())).round().clamp(min=1)  # (2, N)
    free = torch.tensor([[width], [height]], device=area.device) - sizes
    return torch.cat(((uniform[:, 2:4].T * (free + 1)).floor(), sizes))


def _resize(pixels: Tensor, boxes: Tensor, flipped: Tensor) -> Tensor:
    """The boxes (4, N) of the images, resized to the whole, some mirrored. In float32 within 1e-4 at 224 pixels."""
    left, top, width, height = boxes
    x = _positions(left, width, pixels.shape[3])  # (N, W)
    y = _positions(top, height, pixels.shape[2])  # (N, H)
    x = torch.where(flipped[:, None], x.flip(1), x)
    # without a rotation x and y do not mix: building the grid from both is far cheaper than affine_grid
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)  # (N, H, W, 2)
    return F.grid_sample(pixels, grid.to(pixels.dtype), padding_mode="border", align_corners=False)


def _shift(pixels: Tensor, padding: int, uniform: Tensor, flipped: Tensor) -> Tensor:
    """Images cut out of themselves with a black edge of `padding` pixels around them, some mirrored."""
    left, top = (uniform[:, 2:4].T * (2 * padding + 1)).long()  # (N,) each, 0 to 2 * padding
    x = left[:, None] + torch.arange(pixels.shape[3], device=pixels.device)  # (N, W)
    y = top[:, None] + torch.arange(pixels.shape[2], device=pixels.device)  # (N, H)
    x = torch.where(flipped[:, None], x.flip(1), x)
    rows = F.pad(pixels, [padding] * 4).take_along_dim(y[:, None, :, None], 2)  # (N, C, H, W + 2 * padding)
    return rows.take_along_dim(x[:, None, None, :], 3)


def _positions(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Where `size` pixels that divide a box evenly lie along one side, -1..1 as grid_sample counts: (N, size)."""
    centres = (torch.arange(size, device=start.device) + 0.5) * (length[:, None] / size) - 0.5
    inside = torch.minimum(centres.clamp(min=0), length[:, None] - 1)  # a crop does not see beyond its edge
    return (2 * (start[:, None] + inside) + 1) / size - 1


def recolour(pixels: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and, for three channels, saturation, by factors (N, 3)."""
    brightness, contrast, saturation = factors.to(pixels.dtype)[..., None, None, None].unbind(1)  # (N, 1, 1, 1)
    coloured = pixels.shape[1] == 3
    weights = pixels.new_tensor(GREY if coloured else [1.0]).view(-1, 1, 1)
    pixels = (pixels * brightness).clamp_(0, 1)
    mean = (pixels.mean((2, 3), keepdim=True) * weights).sum(1, keepdim=True)  # (N, 1, 1, 1)
    pixels.mul_(contrast).add_((1 - contrast) * mean).clamp_(0, 1)
    if coloured:
        grey = (pixels * weights).sum(1, keepdim=True)  # (N, 1, H, W)
        pixels.mul_(saturation).add_((1 - saturation) * grey).clamp_(0, 1)
    return pixels
