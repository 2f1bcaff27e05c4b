"""`fsl distill`: a small data set in place of a large one, and how much of it a kernel regression learns from each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fsl_cli.data.embeddings import features
from fsl_cli.data.store import SPLITS, DataSet
from fsl_cli.errors import UserError
from fsl_cli.experiment.shapes import data_part
from fsl_cli.files import make_folder, replacing, write_table
from fsl_cli.pictures.distilled import distilled_picture
from fsl_cli.settings.binding import build, demand_one
from fsl_cli.settings.hints import did_you_mean
from fsl_cli.stats import share_interval
from fsl_cli.use import inducing
from fsl_cli.use.embed import untrained
from fsl_cli.use.inducing import Taught

ALL_AT_ONCE = 5000  # items of which the kernel regression on all of them is worth its time


class Plan(NamedTuple):
    """What is asked for."""

    images: int  # in all
    split: str  # train | val | test | all: whose classes
    classes: Sequence[str]  # some of them by name; none: all
    holdout: float  # the share of each class that nothing is learned from
    layers: int
    steps: int
    lr: float
    seed: int


class Items(NamedTuple):
    """The items of some classes, as the kernel sees them: all numbers less their mean, over their deviation."""

    data: DataSet
    names: list[str]  # of the classes
    train: Tensor  # (n, d) float64
    train_y: Tensor
    held: Tensor  # (m, d), which nothing is learned from
    held_y: Tensor
    mean: float
    std: float
    shape: tuple[int, ...]  # of an item


class Reached(NamedTuple):
    """The accuracy on the held-out items of kernel regression on some items, with its 95% interval (Wilson's)."""

    of: str
    accuracy: float
    low: float
    high: float


class Distilled(NamedTuple):
    """What came out: as many items of each class as of each other, or one more."""

    items: Items
    start: np.ndarray[Any, Any]  # (images, *shape), real ones; pixels in 0..1
    x: np.ndarray[Any, Any]
    labels: list[str]
    reached: list[Reached]


def read(chosen: Sequence[str], plan: Plan, user_dir: str | None) -> Items:
    """The items of the data set that the words name. Raises UserError, also where classes or items are too few."""
    settings = untrained(chosen, user_dir)
    demand_one(settings.data)
    data = build(data_part(settings))
    if not isinstance(data, DataSet) or data.items == "texts":
        what = "texts" if isinstance(data, DataSet) else "curves, drawn as they are needed"
        raise UserError(f"data={settings.data_choice} has {what}: choose one of images or embeddings.")
    numbers = _classes(data, plan)
    rows = [np.arange(data.store.starts[c], data.store.starts[c + 1]) for c in numbers]
    dice = np.random.default_rng(plan.seed)
    learned, kept = [], []
    for number, own in zip(numbers, (dice.permutation(each) for each in rows), strict=True):
        held = max(1, round(plan.holdout * len(own)))
        if len(own) - held < _each(plan, len(numbers)):
            raise UserError(
                f"class {data.store.names[number]} has {len(own)} {data.items}, of which {held} are held out "
                f"(holdout={plan.holdout:g}): {_each(plan, len(numbers))} are needed to begin with. Type images="
                f"{len(numbers)} or a smaller holdout."
            )
        learned.append(own[held:])
        kept.append(own[:held])
    train, test = (_flat(data, np.concatenate(each)) for each in (learned, kept))
    train_y, test_y = (torch.arange(len(each)).repeat_interleave(_counts(each)) for each in (learned, kept))
    mean, std = train.mean().item(), train.std().item()
    if not std > 0:
        raise UserError(f"all {data.items} of {data.name} are the same: nothing can be learned from them.")
    shape = (train.shape[1],) if data.items == "embeddings" else tuple(data.store.images.shape[1:])
    names = [data.store.names[c] for c in numbers]
    return Items(data, names, (train - mean) / std, train_y, (test - mean) / std, test_y, mean, std, shape)


def distil(items: Items, plan: Plan, told: Callable[[int, float], object]) -> Distilled:
    """Items that teach best, from real ones of each class; beside these, these with solved labels, and all."""
    count = len(items.names)
    chosen = [
        (items.train_y == c).nonzero()[: plan.images // count + (c < plan.images % count), 0] for c in range(count)
    ]
    rows = torch.cat(chosen)
    targets = Taught(items.train, inducing.one_hot(items.train_y, count))
    start = Taught(items.train[rows], targets.y[rows])
    images = items.data.items == "images"
    bounds = ((0 - items.mean) / items.std, (1 - items.mean) / items.std) if images else None
    found = inducing.distilled(start, targets, plan.steps, plan.lr, bounds, plan.seed, plan.layers, told)
    x = found.x * items.std + items.mean
    if images:  # as it is written
        x = (x * 255).round() / 255
    written = found._replace(x=(x - items.mean) / items.std)
    few = f"{plan.images:,}"
    reached = [
        _reached(items, f"{few} as they are", start, plan.layers),
        _reached(items, f"{few} with solved labels", inducing.labels_solved(start, targets, plan.layers), plan.layers),
        _reached(items, f"{few} distilled", written, plan.layers),
    ]
    if len(items.train) <= ALL_AT_ONCE:
        reached.append(_reached(items, f"all {len(items.train):,}", targets, plan.layers))
    first, last = ((each * items.std + items.mean).numpy() for each in (start.x, written.x))
    labels = [items.names[c] for c in items.train_y[rows].tolist()]
    return Distilled(items, first.reshape(-1, *items.shape), last.reshape(-1, *items.shape), labels, reached)


def write(out: Path, found: Distilled) -> list[Path]:
    """Embeddings as an npz; images as a folder of PNG files with a table, and a picture of them beside it."""
    if found.items.data.items == "embeddings":
        make_folder(out.parent)
        with replacing(out) as temporary, open(temporary, "wb") as file:
            np.savez(file, features=found.x.astype(np.float32), labels=np.array(found.labels))
        return [out]
    make_folder(out)
    pixels = (found.x * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    names = [f"{number:0{len(str(len(pixels)))}}.png" for number in range(1, len(pixels) + 1)]
    for name, each in zip(names, pixels, strict=True):
        Image.fromarray(each.squeeze(2) if each.shape[2] == 1 else each).save(out / name)
    write_table(out / "labels.csv", ["file", "label"], zip(names, found.labels, strict=True))
    picture = out.with_name(f"{out.name}.png")
    with replacing(picture) as temporary:
        distilled_picture(temporary, found.start, found.x, found.labels)
    return [out, picture]


def _classes(data: DataSet, plan: Plan) -> list[int]:
    """The numbers of the classes that are asked for. Raises UserError."""
    parts = SPLITS if plan.split == "all" else (plan.split,)
    numbers = sorted({c for part in parts for c in data.splits[part].classes.tolist()})
    if plan.classes:
        there = {data.store.names[c]: c for c in numbers}
        for name in plan.classes:
            if name not in there:
                raise UserError(
                    f"there is no class '{name}' in split={plan.split} of {data.name}."
                    f"{did_you_mean(name, list(there))} fsl data info tells which there are."
                )
        numbers = sorted({there[name] for name in plan.classes})
    if len(numbers) < 2:
        raise UserError(f"split={plan.split} of {data.name} has {len(numbers)} classes: two are needed.")
    if plan.images < len(numbers):
        raise UserError(
            f"images={plan.images}: there are {len(numbers):,} classes, and each needs one. Type "
            f"images={len(numbers)}, or choose some: classes='{data.store.names[numbers[0]]},"
            f"{data.store.names[numbers[1]]}'."
        )
    return numbers


def _each(plan: Plan, count: int) -> int:
    """The most images that a class is given."""
    return -(-plan.images // count)


def _counts(parts: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    return torch.tensor([len(part) for part in parts])


def _flat(data: DataSet, rows: np.ndarray[Any, Any]) -> Tensor:
    raw = torch.from_numpy(data.store.take(rows))
    if data.items == "embeddings":
        return features(raw, torch.float64).flatten(1)
    return raw.flatten(1).to(torch.float64) / 255


def _reached(items: Items, of: str, taught: Taught, layers: int) -> Reached:
    right = (inducing.predicted(taught, items.held, layers).argmax(1) == items.held_y).sum().item()
    return Reached(of, right / len(items.held), *share_interval(int(right), len(items.held)))
