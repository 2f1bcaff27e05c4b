"""From episode numbers to images on the device: indices are drawn, images gathered, turned, augmented and scaled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import grayscale_to_rgb, rgb_to_grayscale

from fsl_cli.data import augment
from fsl_cli.data.augment import Augment
from fsl_cli.data.embeddings import features
from fsl_cli.data.feasible import groups_of, shape_problems, sizes_of
from fsl_cli.data.pseudo import Copies
from fsl_cli.data.sampler import Episode, Labels, Numbers, Sampler, Shape
from fsl_cli.data.store import DataSet
from fsl_cli.data.texts import code_points
from fsl_cli.episodes import IGNORED, Episodes, Examples, Metric
from fsl_cli.errors import UserError

ON_DEVICE_LIMIT = 4 << 30  # bytes: larger stores are gathered on the host, image by image


class Batch(NamedTuple):
    """Which episodes to gather: (split, their seed, their indices)."""

    split: str
    seed: int
    index: list[int]  # type: ignore[assignment]
    plain: bool = False  # training images as they are, not augmented


class Tasks(Protocol):
    """Where episodes come from."""

    metric: Metric
    features: dict[str, Tensor]  # of splits whose episodes consist of features, not images

    def gather(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> list[Episodes]:
        """The episodes of `batch` on `device`, side by side as far as they have one shape (default: torch's dtype)."""


class ImageTasks:
    """Episodes of one data set's images, as its constants scale them and a backbone for `channels` sees them.

    Or of its texts, or embeddings. Training images are changed by `augmentation`, validation and test images never.
    `labels` are those of training classes, as `Sampler.labels`.
    Where a class is one image, queries are copies that `copies` changes.
    Raises UserError when a split cannot give episodes of its shape.
    """

    metric: Metric = "accuracy"

    def __init__(
        self,
        data: DataSet,
        shapes: dict[str, Shape],
        channels: int,
        augmentation: Augment | None = None,
        labels: Labels = "drawn",
        copies: Copies | None = None,
    ) -> None:
        self.data = data
        self.channels = channels
        self.augmentation = augmentation
        self.samplers = {
            part: sampler(data, part, shape, labels if part == "train" else "drawn") for part, shape in shapes.items()
        }
        self.copies = copies
        self.features: dict[str, Tensor] = {}  # of all images of a split, in place of its images
        self.ordered = False  # whether support sets are dealt in random orders, or class by class
        self._images: Tensor | None = None

    def gather(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> list[Episodes]:
        alike: dict[tuple[int, int, int], list[tuple[int, Episode]]] = {}  # unlabelled images: by the number of classes
        for index in batch.index:
            drawn = self.samplers[batch.split].episode(batch.seed, batch.split, index)
            shape = len(drawn.classes), sum(map(len, drawn.support)), sum(map(len, drawn.query))
            alike.setdefault(shape, []).append((index, drawn))
        return [self._side_by_side(batch, numbered, device, dtype) for numbered in alike.values()]

    def outside(self, batch: Batch, device: torch.device, dtype: torch.dtype | None = None) -> list[Tensor]:
        """For each episode of `batch`, images (n, *item) of classes that it does not have, one for each query."""
        found = []
        for index in batch.index:
            classes, numbers = self.samplers[batch.split].outside(batch.seed, batch.split, index)
            ones = np.ones(len(classes), dtype=np.int64)
            drawn = np.array([classes, numbers], dtype=np.int64)
            found.append(self._items(batch.split, drawn[0], ones, drawn[1], device, dtype, None))
        return found

    def images(self, part: str, device: torch.device, dtype: torch.dtype | None = None) -> Iterator[Tensor]:
        """All images of a split, class by class, each (n, C, H, W): the order in which `features` are kept."""
        for number, size in enumerate(sizes_of(self.data, part).tolist()):
            yield self._scaled(part, np.array([number]), np.array([size]), np.arange(size), device, dtype, None)

    def classes(self, part: str, device: torch.device, dtype: torch.dtype | None = None) -> Iterator[Tensor]:
        """All images of a split, class by class, each (n, *item); their features (n, d) where these are known."""
        if part in self.features:
            yield from self.features[part].split(self.samplers[part].sizes.tolist())
        else:
            yield from self.images(part, device, dtype)

    def _side_by_side(self, batch: Batch, numbered: list[tuple[int, Episode]], device: Any, dtype: Any) -> Episodes:
        index, drawn = [number for number, _ in numbered], [episode for _, episode in numbered]
        classes = np.array([episode.classes for episode in drawn])  # (T, way)
        support, query = [episode.support for episode in drawn], [episode.query for episode in drawn]
        random = None
        if batch.split == "train" and self.augmentation and not batch.plain:
            each = sum(map(len, support[0] + query[0] + drawn[0].unlabelled))
            stacked = np.stack([augment.numbers(batch.seed, batch.split, number, each) for number in index])
            random = torch.from_numpy(stacked).to(device, dtype or torch.get_default_dtype())  # (T, n + m, K)
        n, m = sum(map(len, support[0])), sum(map(len, query[0]))
        changes = self._copies(batch, index, m, device, dtype)
        support_set = self._examples(
            batch.split, classes, support, device, dtype, random if random is None else random[:, :n]
        )
        if self.ordered:
            orders = [Sampler.support_order(batch.seed, batch.split, number, n) for number in index]
            support_set = support_set.in_order(torch.tensor(orders, device=device))
        if drawn[0].unlabelled:
            unlabelled = self._examples(
                batch.split,
                np.array([episode.classes + episode.distractors for episode in drawn]),
                [episode.unlabelled for episode in drawn],
                device,
                dtype,
                random if random is None else random[:, n + m :],
            )
            support_set = Examples(
                torch.cat([support_set.x, unlabelled.x], 1),
                torch.cat([support_set.y, torch.full_like(unlabelled.y, IGNORED)], 1),
            )
        return Episodes(
            support_set,
            self._examples(
                batch.split, classes, query, device, dtype, random if random is None else random[:, n : n + m], changes
            ),
            torch.from_numpy(classes).to(device),
            torch.tensor(index, device=device),
            self._class_rows(batch.split, classes, device, dtype),
        )

    def _class_rows(self, part: str, classes: Numbers, device: Any, dtype: Any) -> Tensor | None:
        """The class rows (T, way, k) of these classes of a split, where the data set has any."""
        rows, split = self.data.class_rows, self.data.splits[part]
        if rows is None or split.pseudo:
            return None
        return torch.from_numpy(rows[split.classes[classes // split.turns]]).to(
            device, dtype or torch.get_default_dtype()
        )

    def _copies(self, batch: Batch, index: list[int], count: int, device: Any, dtype: Any) -> Tensor | None:
        """How the `count` queries of each episode are changed, (T, count, K), where they are copies."""
        pseudo = self.data.splits[batch.split].pseudo
        if batch.plain or not self.copies or not pseudo or not pseudo.copies:
            return None
        pixels = math.prod(self.data.store.images.shape[2:])
        drawn = np.stack([self.copies.numbers(batch.seed, batch.split, number, count, pixels) for number in index])
        return torch.from_numpy(drawn).to(device, dtype or torch.get_default_dtype())

    def _examples(
        self,
        part: str,
        classes: Numbers,
        images: list[list[list[int]]],
        device: Any,
        dtype: Any,
        random: Tensor | None,
        changes: Tensor | None = None,
    ) -> Examples:
        """classes (T, way), images of each class of each episode: pixels (T, n, C, H, W) and labels (T, n)."""
        episodes, way = classes.shape
        counts = np.array([len(own) for episode in images for own in episode])  # (T * way,)
        numbers = np.array([number for episode in images for own in episode for number in own], dtype=np.int64)
        labels = torch.from_numpy(np.repeat(np.tile(np.arange(way), episodes), counts)).to(device)
        x = self._items(part, classes, counts, numbers, device, dtype, random, changes)
        each = len(labels) // episodes
        return Examples(x.unflatten(0, (episodes, each)), labels.view(episodes, each))

    def _items(
        self, part: str, classes: Numbers, counts: Numbers, numbers: Numbers, device: Any, dtype: Any,
        random: Tensor | None, changes: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """What `_scaled` gives; or the split's features in place of images, where they are known."""
        if part not in self.features:
            return self._scaled(part, classes, counts, numbers, device, dtype, random, changes)
        first = np.cumsum([0, *self.samplers[part].sizes])[np.repeat(classes.reshape(-1), counts)]
        return self.features[part][torch.from_numpy(first + numbers).to(device)]

    def _scaled(
        self, part: str, classes: Numbers, counts: Numbers, numbers: Numbers, device: Any, dtype: Any,
        random: Tensor | None, changes: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The next counts[i] `numbers` are images of class i of `classes`: all of them turned, augmented and scaled."""
        split, store = self.data.splits[part], self.data.store
        if split.pseudo:
            rows, turn = np.divmod(split.pseudo.at(np.repeat(classes.reshape(-1), counts), numbers), split.turns)
        else:
            base, turn = (np.repeat(each.reshape(-1), counts) for each in np.divmod(classes, split.turns))
            rows = store.starts[split.classes[base]] + numbers
        raw = self._raw(rows, device)
        dtype = dtype or torch.get_default_dtype()
        if self.data.items == "texts":
            return code_points(raw, dtype)  # (T * n, 1, 1, size)
        if self.data.items == "embeddings":
            return features(raw, dtype)  # (T * n, d, 1, 1)
        if raw.shape[1] != self.channels:
            raw = grayscale_to_rgb(raw) if self.channels == 3 else rgb_to_grayscale(raw)
        pixels = raw.to(dtype).div_(255)  # (T * n, C, H, W)
        turns = torch.from_numpy(turn)
        for quarter in range(1, split.turns):
            chosen = (turns == quarter).nonzero().squeeze(1).to(device)
            pixels[chosen] = pixels[chosen].rot90(quarter, (2, 3))
        if random is not None and self.augmentation:
            pixels = self.augmentation.apply(pixels, random.flatten(0, 1))
        if changes is not None and self.copies:
            pixels = self.copies.apply(pixels, changes.flatten(0, 1))
        for values, change in ((self.data.mean, pixels.sub_), (self.data.std, pixels.div_)):
            change(torch.tensor(values, device=device, dtype=pixels.dtype).expand(self.channels).view(-1, 1, 1))
        return pixels

    def _raw(self, rows: Numbers, device: torch.device) -> Tensor:
        """What the store has in these rows, (n, C, H, W) uint8."""
        store = self.data.store
        if device.type == "cpu" or store.images.nbytes > ON_DEVICE_LIMIT:
            return torch.from_numpy(store.take(rows)).to(device)
        if self._images is None or self._images.device != device:
            self._images = torch.from_numpy(np.array(store.images)).to(device)
        return self._images[torch.from_numpy(rows).to(device)]


def sampler(data: DataSet, part: str, shape: Shape, labels: Labels = "drawn") -> Sampler:
    """The sampler of one split. Raises UserError when the split cannot give such episodes."""
    problems = shape_problems(data, {part: shape})
    if labels != "drawn" and not isinstance(shape.way, int):
        problems.append(
            f"labels={labels}: each class has one of as many labels as an episode has classes, and "
            f"train_way={shape.way}. Type train_way={shape.way[0]}."
        )
    if labels != "drawn" and data.splits[part].groups is not None:
        problems.append(
            f"labels={labels}: an episode takes one class of each label, whatever its group, and those of {data.name} "
            "come from one group each. Type labels=drawn, or choose episodes of all classes."
        )
    if problems:
        raise UserError("\n".join(problems))
    return Sampler(sizes_of(data, part), *shape[:3], groups_of(data, part), shape.query_balance, labels, *shape[4:])
