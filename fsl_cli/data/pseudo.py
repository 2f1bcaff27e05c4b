"""Training without labels: each image is a class of its own, and its queries are changed copies of it.

UMTRA, Khodadadeh et al., NeurIPS 2019, https://arxiv.org/abs/1811.11819; ProtoTransfer, Medina et al. 2020,
https://arxiv.org/abs/2006.11325. They differ in how many images an episode takes and in how copies are changed. Labels
are hidden by construction: images are numbered by their bytes, so that whoever has labelled them changes no episode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b, shake_128
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.data.augment import recolour
from fsl_cli.data.sampler import Numbers, Shape, largest
from fsl_cli.data.store import DataSet, PseudoClasses
from fsl_cli.ranges import Range, Share

COUNT = 11  # numbers of a copy, used or not: turn, two scales, two shears, two shifts, flip, three of colour
Degrees = Annotated[float, Range(least=0, below=90)]


@dataclass(frozen=True)
class Copies:
    """One image is a class, and its queries are copies, each changed on its own.

    turn, shear: up to so many degrees to either side. zoom: each side times a factor within 1/zoom to zoom. shift: up
    to this share of the image's side; what comes in repeats the image's edge. dropout: this share of the pixels is
    black. flip (half of the copies left-right) and jitter (as `Augment`) are of images with colours alone: a mirrored
    letter is another.
    """

    turn: Degrees = 0.0
    zoom: Annotated[float, Range(least=1)] = 1.0
    shear: Degrees = 0.0
    shift: Annotated[float, Range(least=0, below=1)] = 0.0
    dropout: Annotated[float, Range(least=0, below=1)] = 0.0
    flip: bool = False
    jitter: Share = 0.0

    def classes(self, data: DataSet, part: str, shape: Shape) -> PseudoClasses:
        """A class for each image of a split, turned ones on their own, of as many copies as an episode takes."""
        items = unlabelled(data, part)
        queries = 1 if shape.query == "all" else shape.query
        return PseudoClasses(items, np.arange(len(items) + 1), largest(shape.shot) + queries)

    def numbers(self, seed: int, split: str, index: int, count: int, pixels: int) -> np.ndarray[Any, Any]:
        """Uniform in [0, 1) for `count` copies of episode `index`, of so many pixels: (count, COUNT [+ pixels])."""
        wanted = COUNT + (pixels if self.dropout else 0)
        raw = shake_128(f"{seed}/{split}/{index}/copies".encode()).digest(2 * wanted * count)
        return np.frombuffer(raw, dtype="<u2").reshape(count, wanted) / 2.0**16

    def apply(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Images (N, C, H, W) in 0..1 changed as `uniform` (N, COUNT [+ H * W]) of `numbers` says."""
        signed = 2 * uniform[:, :COUNT] - 1
        coloured = images.shape[1] == 3
        flip = self.flip and coloured
        if self.turn or self.shear or self.shift or self.zoom > 1 or flip:
            grid = F.affine_grid(self._affine(signed, flip), list(images.shape), align_corners=False)
            images = F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)
        if self.jitter and coloured:
            images = recolour(images, 1 + self.jitter * signed[:, 8:])
        if self.dropout:
            kept = uniform[:, COUNT:] >= self.dropout
            images = images * kept.view(-1, 1, *images.shape[2:])
        return images

    def _affine(self, signed: Tensor, flip: bool) -> Tensor:
        """From places in the copy, -1..1, to those in the image: turned, sheared, zoomed, shifted, (N, 2, 3)."""
        angle = math.radians(self.turn) * signed[:, 0]
        zoom = torch.exp(math.log(self.zoom) * signed[:, 1:3])  # (N, 2)
        shear = torch.tan(math.radians(self.shear) * signed[:, 3:5])
        turned = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), 1).view(-1, 2, 2)
        one = torch.ones_like(angle)
        sheared = torch.stack((one, shear[:, 0], shear[:, 1], one), 1).view(-1, 2, 2)
        mirrored = torch.stack((torch.where(signed[:, 7] < 0, -one, one) if flip else one, one), 1)
        return torch.cat((turned @ sheared * (zoom * mirrored)[:, None, :], 2 * self.shift * signed[:, 5:7, None]), 2)


def unlabelled(data: DataSet, part: str) -> Numbers:
    """All images of a split as `row of the store * turns + quarter turns`, in an order that their bytes decide."""
    split, store = data.splits[part], data.store
    ranges = [np.arange(store.starts[c], store.starts[c + 1]) for c in split.classes]
    rows = np.concatenate(ranges) if ranges else np.zeros(0, dtype=np.int64)
    order = sorted(
        (blake2b(store.take(rows[i : i + 1]).tobytes(), digest_size=16).digest(), i) for i in range(len(rows))
    )
    sorted_rows = rows[[i for _, i in order]]
    return (sorted_rows[:, None] * split.turns + np.arange(split.turns)).reshape(-1)


def hidden(data: DataSet, classes: Callable[[DataSet, str, Shape], PseudoClasses], shapes: dict[str, Shape]) -> DataSet:
    """The data set whose training split, and whose every split without labels, has classes as `classes` makes them."""
    parts = [part for part in shapes if part == "train" or data.unsorted]
    made = {part: data.splits[part]._replace(pseudo=classes(data, part, shapes[part])) for part in parts}
    return data._replace(splits={**data.splits, **made})
