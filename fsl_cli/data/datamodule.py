"""From episode numbers to images on the device: indices are drawn, images gathered, scaled and turned there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torchvision.transforms.v2.functional import grayscale_to_rgb, rgb_to_grayscale

from fsl_cli.data.sampler import Sampler
from fsl_cli.data.store import DataSet, Split
from fsl_cli.episodes import Episodes, Examples
from fsl_cli.errors import UserError

EVALUATION_SEED = 0  # of validation and test episodes, whatever the seed of the run: all runs meet the same ones
EVALUATION_BATCH = 4  # episodes at a time
ON_DEVICE_LIMIT = 4 << 30  # bytes: larger stores are gathered on the host, image by image


class Shape(NamedTuple):
    """N-way k-shot episodes with `query` images of each class to classify."""

    way: int
    shot: int
    query: int


class Batch(NamedTuple):
    """Which episodes to gather: (split, their seed, their indices)."""

    split: str
    seed: int
    index: list[int]  # type: ignore[assignment]


class Episodic(LightningDataModule):
    """Meta-batches of episodes of one data set; with several processes, each takes its share of every one.

    Training step s consists of the episodes s * meta_batch to (s + 1) * meta_batch - 1 of (seed, "train"),
    so a resumed run goes on where it stopped. `channels` is what the backbone expects.
    """

    def __init__(
        self,
        data: DataSet,
        shapes: dict[str, Shape],
        channels: int,
        *,
        seed: int = 0,
        meta_batch: int = 1,
        steps: int = 0,
        val_every: int = 1,
        episodes: dict[str, int],
    ) -> None:
        super().__init__()
        self.data = data
        self.shapes = shapes
        self.channels = channels
        self.seed = seed
        self.meta_batch = meta_batch
        self.steps = steps
        self.val_every = val_every
        self.episodes = episodes  # how many of "val" and "test"
        self.samplers = {part: sampler(data, part, shape) for part, shape in shapes.items()}
        self._images: Tensor | None = None

    def train_dataloader(self) -> Iterable[Batch]:
        return _Loader(self._training)

    def val_dataloader(self) -> Iterable[Batch]:
        return _Loader(lambda: self._evaluation("val"))

    def test_dataloader(self) -> Iterable[Batch]:
        return _Loader(lambda: self._evaluation("test"))

    def _training(self) -> Iterator[Batch]:
        """The meta-batches from the trainer's present step up to the next validation."""
        share = self.meta_batch // self.trainer.world_size
        first = self.trainer.global_step
        for step in range(first, min((first // self.val_every + 1) * self.val_every, self.steps)):
            start = step * self.meta_batch + self.trainer.global_rank * share
            yield Batch("train", self.seed, list(range(start, start + share)))

    def _evaluation(self, part: str) -> Iterator[Batch]:
        mine = list(range(self.episodes[part]))[self.trainer.global_rank :: self.trainer.world_size]
        for start in range(0, len(mine), EVALUATION_BATCH):
            yield Batch(part, EVALUATION_SEED, mine[start : start + EVALUATION_BATCH])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Episodes:
        return self.gather(batch, device, self.trainer.lightning_module.dtype)

    def gather(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> Episodes:
        """The episodes of `batch` on `device`, images scaled by the data set's constants (default: torch's dtype)."""
        way, shot, query = self.shapes[batch.split]
        drawn = [self.samplers[batch.split].episode(batch.seed, batch.split, index) for index in batch.index]
        classes = np.stack([episode.classes for episode in drawn])  # (T, way)
        return Episodes(
            self._examples(batch.split, classes, np.stack([e.support for e in drawn]), device, dtype),
            self._examples(batch.split, classes, np.stack([e.query for e in drawn]), device, dtype),
            torch.from_numpy(classes).to(device),
            torch.tensor(batch.index, device=device),
        )

    def _examples(self, part: str, classes: Any, images: Any, device: torch.device, dtype: Any) -> Examples:
        """classes (T, way), images (T, way, n): pixels (T, way*n, C, H, W) and labels (T, way*n)."""
        split: Split = self.data.splits[part]
        episodes, way, n = images.shape
        base, turn = split.classes[classes // split.turns], classes % split.turns
        rows = (self.data.store.starts[base][:, :, None] + images).reshape(-1)
        pixels = self._pixels(rows, device, dtype or torch.get_default_dtype())  # (T*way*n, C, H, W)
        turns = torch.from_numpy(np.repeat(turn.reshape(-1), n))
        for quarter in range(1, split.turns):
            chosen = (turns == quarter).nonzero().squeeze(1).to(device)
            pixels[chosen] = pixels[chosen].rot90(quarter, (2, 3))
        labels = torch.arange(way, device=device).repeat_interleave(n).expand(episodes, -1)
        return Examples(pixels.unflatten(0, (episodes, way * n)), labels)

    def _pixels(self, rows: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
        store = self.data.store.images
        if device.type == "cpu" or store.nbytes > ON_DEVICE_LIMIT:
            raw = torch.from_numpy(store[rows]).to(device)
        else:
            if self._images is None or self._images.device != device:
                self._images = torch.from_numpy(np.array(store)).to(device)
            raw = self._images[torch.from_numpy(rows).to(device)]
        if raw.shape[1] != self.channels:
            raw = grayscale_to_rgb(raw) if self.channels == 3 else rgb_to_grayscale(raw)
        mean, std = (
            torch.tensor(values, device=device, dtype=dtype).expand(self.channels).view(-1, 1, 1)
            for values in (self.data.mean, self.data.std)
        )
        return raw.to(dtype).div_(255).sub_(mean).div_(std)


class _Loader:
    """What Lightning takes for a data loader of unknown length: each epoch, a fresh iterator."""

    def __init__(self, batches: Callable[[], Iterator[Batch]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()


def sampler(data: DataSet, part: str, shape: Shape) -> Sampler:
    """The sampler of one split. Raises UserError when the split cannot give such episodes."""
    problems = shape_problems(data, part, shape)
    if problems:
        raise UserError("\n".join(problems))
    return Sampler(_sizes(data, part), *shape)


def shape_problems(data: DataSet, part: str, shape: Shape) -> list[str]:
    """Why `part` of the data set cannot give episodes of this shape; empty when it can."""
    sizes = _sizes(data, part)
    prefix = "train_" if part == "train" else ""
    problems = []
    if shape.way > len(sizes):
        problems.append(
            f"{prefix}way={shape.way} needs {shape.way} classes; the {part} split of {data.name} has {len(sizes)}. "
            + (f"Try {prefix}way={len(sizes)}." if len(sizes) > 1 else "Give it more classes.")
        )
    short = int(np.argmin(sizes)) if len(sizes) else 0
    if len(sizes) and shape.shot + shape.query > sizes[short]:
        split = data.splits[part]
        name = data.store.names[split.classes[short // split.turns]]
        problems.append(
            f"{prefix}shot={shape.shot} and {prefix}query={shape.query} need {shape.shot + shape.query} images of each "
            f"class; {name} in the {part} split of {data.name} has {sizes[short]}. "
            f"Try {prefix}query={max(1, int(sizes[short]) - shape.shot)}."
        )
    return problems


def _sizes(data: DataSet, part: str) -> Any:
    """Images of each class of the split, turned classes counted on their own."""
    split = data.splits[part]
    return np.repeat(np.diff(data.store.starts)[split.classes], split.turns)
