"""Image completion: the pixels of an image as points of a function of two variables (Garnelo et al. 2018a, section 4.2)

https://arxiv.org/abs/1807.01613
A task is one image of a data set, its shot the pixels to learn from: x is where a pixel is, from -1 to 1 along and
down, y how bright it is, 0 to 1. Classes are split as the data set splits them, so images of the test are of new ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsl_cli.data.sampler import Shape, distinct, largest, raw_numbers, smallest
from fsl_cli.data.sources import cifar, cub, folder, glyphs, miniimagenet, omniglot
from fsl_cli.data.store import DataSet
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import Episodes, Examples, Metric
from fsl_cli.errors import UserError
from fsl_cli.ranges import Count

OF: dict[str, Callable[..., DataSet]] = {
    "glyphs": glyphs.glyphs,
    "omniglot": omniglot.omniglot,
    "miniimagenet": miniimagenet.miniimagenet,
    "cifar_fs": cifar.cifar_fs,
    "fc100": cifar.fc100,
    "cub": cub.cub,
    "folder": folder.folder,
}
GREY = (0.299, 0.587, 0.114)  # of red, green and blue


class Pictures(NamedTuple):
    """Images as functions."""

    data: DataSet
    inputs: int = 2

    @property
    def name(self) -> str:
        return "pixels"

    @property
    def hash(self) -> str:
        return self.data.hash

    @property
    def protocol(self) -> dict[str, str]:
        """What must stand beside every number."""
        return {**self.data.protocol, "split": f"{self.data.name} {self.data.protocol['split']}"}

    def fingerprints(self, part: str) -> dict[str, str]:
        """Of the classes whose images these are."""
        return self.data.fingerprints(part)

    def tasks(self, shapes: dict[str, Shape]) -> PictureTasks:
        """Episodes of these shapes. Raises UserError where an image has fewer pixels."""
        _, _, height, width = self.data.store.images.shape
        for part, shape in shapes.items():
            query = 1 if shape.query == "all" else shape.query
            if largest(shape.shot) + query > height * width:
                raise UserError(
                    f"shot={shape.shot} and query={shape.query}: images of {height} x {width} have {height * width} "
                    f"pixels. Try shot=[1,{height * width // 2}] query={height * width // 4}."
                )
            if not len(self.data.splits[part].classes):
                raise UserError(f"The {part} split of {self.data.name} has no images.")
        return PictureTasks(self.data, shapes)


class PictureTasks:
    """Episodes of images: x (T, n, 2), y (T, n, 1)."""

    metric: Metric = "mse"
    reach = 1.0

    def __init__(self, data: DataSet, shapes: dict[str, Shape]) -> None:
        self.data = data
        self.shapes = shapes
        self.features: dict[str, Tensor] = {}
        self.linear = None
        height, width = data.store.images.shape[2:]
        down, along = (torch.arange(side) / max(side - 1, 1) * 2 - 1 for side in (height, width))
        self.shape = (height, width)
        self.places = torch.stack(torch.meshgrid(down, along, indexing="ij"), -1).flip(-1).flatten(0, 1)  # (H * W, 2)

    def gather(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> list[Episodes]:
        alike: dict[int, list[tuple[int, list[int]]]] = {}
        for index in batch.index:
            shot, places = self._points(batch, index)
            alike.setdefault(shot, []).append((index, places))
        dtype = dtype or torch.get_default_dtype()
        return [self._side_by_side(batch, shot, drawn, device, dtype) for shot, drawn in alike.items()]

    def truth(self, batch: Batch, x: Tensor) -> Tensor:
        """The images of `batch` at x (n, 2), whose pixels these are: (T, n, 1)."""
        _, height, width = self.data.store.images.shape[1:]
        along, down = ((x + 1) / 2 * torch.tensor([width - 1, height - 1]).to(x)).round().long().unbind(-1)
        return self._images(batch, batch.index).to(x)[:, down * width + along].unsqueeze(-1)

    def best(self, batch: Batch, device: torch.device) -> list[float]:
        """Nothing: nobody knows how images are drawn."""
        return []

    def _points(self, batch: Batch, index: int) -> tuple[int, list[int]]:
        """How many pixels an episode has to learn from; these, and then those of the queries, by their numbers."""
        shape, count = self.shapes[batch.split], len(self.places)
        least, most = smallest(shape.shot), largest(shape.shot)
        numbers = raw_numbers(f"pixels/{batch.seed}/{batch.split}/{index}/points", 1 + count)
        shot = least + numbers[0] % (most - least + 1)
        query = count - shot if shape.query == "all" else int(shape.query)
        return shot, distinct(numbers[1 : 1 + shot + query], count)

    def _images(self, batch: Batch, index: list[int]) -> Tensor:
        """The images of these episodes, grey, 0 to 1: (T, H * W)."""
        store, classes = self.data.store, self.data.splits[batch.split].classes
        rows = []
        for each in index:
            which, number = raw_numbers(f"pixels/{batch.seed}/{batch.split}/{each}", 2)
            own = classes[which % len(classes)]
            rows.append(int(store.starts[own]) + number % int(store.starts[own + 1] - store.starts[own]))
        pixels = torch.from_numpy(store.take(np.array(rows))).flatten(2).double() / 255  # (T, C, H * W)
        if pixels.shape[1] == 3:
            return (pixels * torch.tensor(GREY, dtype=torch.float64)[:, None]).sum(1)
        return pixels.mean(1)

    def _side_by_side(
        self, batch: Batch, shot: int, drawn: list[tuple[int, list[int]]], device: torch.device, dtype: torch.dtype
    ) -> Episodes:
        index, places = [each for each, _ in drawn], torch.tensor([own for _, own in drawn])
        y = self._images(batch, index).gather(1, places).unsqueeze(-1).to(device, dtype)  # (T, n + m, 1)
        x = self.places[places].to(device, dtype)  # (T, n + m, 2)
        classes = torch.zeros(len(index), 1, dtype=torch.long, device=device)
        support, query = Examples(x[:, :shot], y[:, :shot]), Examples(x[:, shot:], y[:, shot:])
        return Episodes(support, query, classes, torch.tensor(index, device=device))


def pixels(
    of: Literal["glyphs", "omniglot", "miniimagenet", "cifar_fs", "fc100", "cub", "folder"] = "glyphs",
    root: str | None = None,
    size: Count = 28,
    cache: str | None = None,
) -> Pictures:
    """The images of the data set `of`, of `size` pixels a side; `root` is where your copy lies. Raises UserError."""
    given: dict[str, Any] = {"root": root, "size": size, "cache": cache, "rotations": "none"}
    taken = inspect.signature(OF[of]).parameters
    if root and "root" not in taken:
        raise UserError(f"data.root={root}: {of} are drawn here, from no files. Leave it out, or type data.of=folder.")
    return Pictures(OF[of](**{key: value for key, value in given.items() if key in taken}))
