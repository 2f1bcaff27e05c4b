"""miniImageNet: 100 classes of ImageNet, 600 images of 84 x 84 each (Vinyals et al. 2016; split of Ravi & Larochelle).

https://openreview.net/forum?id=rJY0-Kcll
Three forms of a copy are understood: images with the tables train.csv, val.csv and test.csv; a folder per class; and
the pickles that most repositories pass around, which are read without running what is in them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fsl_cli.data.copies import by_folder, by_prefix, divided, find_files, frozen, open_copy
from fsl_cli.data.decode import RESIZE, Classes, File, decode, scaled
from fsl_cli.data.pickles import read_pickle
from fsl_cli.data.store import SPLITS, DataSet, Images, cache_folder
from fsl_cli.errors import UserError

IMAGES = 600  # of each class
MEAN, STD = (0.472, 0.453, 0.410), (0.277, 0.268, 0.285)  # of the training images, as in MetaOptNet
PICKLES = ("mini-imagenet-cache-{}.pkl", "miniImageNet_category_split_{}.pickle", "{}.pkl")
GET_IT = (
    "ImageNet's terms do not let a program download miniImageNet: get mini-imagenet.zip (images/*.jpg, train.csv, "
    "val.csv, test.csv) or mini-imagenet-cache-train.pkl, -val.pkl and -test.pkl, for example by way of "
    "https://github.com/yaoyao-liu/mini-imagenet-tools or https://github.com/renmengye/few-shot-ssl-public. "
    "Put it into {folder}, or type data.root=PATH. "
    f"What will be checked: the 100 classes, by name, and {IMAGES} images of each."
)


def miniimagenet(
    root: str | None = None,
    size: int = 84,
    rotations: Literal["none", "train", "all"] = "none",
    on_error: Literal["stop", "skip"] = "stop",
    cache: str | None = None,
) -> DataSet:
    """miniImageNet at size x size, 3 channels, in Ravi's 64 / 16 / 20 classes.

    `root` is a zip or folder; None takes the copy in the cache's folder downloads/miniimagenet, or what was prepared
    before. `on_error="skip"` leaves out images that are missing or cannot be read, and records them with the store.
    Raises UserError when classes or images are not all there.
    """
    skipped: list[str] = []  # filled while the images are drawn, and then written with the recipe
    recipe = {"size": size, "resize": RESIZE, "on_error": on_error, "skipped": skipped}
    draw = partial(_draw, size=size, on_error=on_error, skipped=skipped)
    store = open_copy(cache_folder(cache), "miniimagenet", root, recipe, draw, GET_IT)
    lists = frozen("miniimagenet")
    if sorted(store.names) != sorted(sum(lists.values(), [])):
        lists = by_prefix(store.names)  # pickles that number their classes
    return divided("miniimagenet", store, "ravi", lists, rotations)._replace(mean=MEAN, std=STD)


def _draw(place: Path, size: int, on_error: str, skipped: list[str]) -> Iterable[tuple[str, Images]]:
    for pattern in PICKLES:
        paths = {part: place / pattern.format(part) for part in SPLITS}
        if pattern == PICKLES[1]:
            paths["train"] = place / pattern.format("train_phase_train")
        if any(path.exists() for path in paths.values()):
            return _from_pickles(paths, size)
    files = find_files(place)
    tables = {part: [path for path in files if f"/{path}".endswith(f"/{part}.csv")] for part in SPLITS}
    classes = _by_table(files, tables) if any(tables.values()) else by_folder(files)
    _check({name: len(group) for name, group in classes.items()}, place, on_error == "skip")
    return decode(classes, size, on_error, skipped)


def _by_table(files: dict[str, File], tables: dict[str, list[str]]) -> Classes:
    """The images that the three tables name, each of which must hold the classes of its split."""
    named = {path.rpartition("/")[2]: file for path, file in files.items()}
    classes: Classes = {}
    for part, wanted in frozen("miniimagenet").items():
        if len(tables[part]) != 1:
            raise UserError(f"There must be one {part}.csv beside the images, not {len(tables[part])}.")
        table = files[tables[part][0]]
        rows = list(csv.DictReader(io.StringIO(table.read().decode())))
        if {row.get("label") for row in rows} != set(wanted):
            raise UserError(f"{table.name} does not list the classes of Ravi's {part} split under filename,label.")
        for row in rows:
            name = row["filename"]
            classes.setdefault(row["label"], []).append(named.get(name) or File(name, partial(_missing, part)))
    return classes


def _missing(part: str) -> bytes:
    raise OSError(f"it is missing, though {part}.csv lists it")


def _from_pickles(paths: dict[str, Path], size: int) -> Iterable[tuple[str, Images]]:
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing:
        raise UserError(f"{', '.join(missing)} is missing: all three pickles are needed.")
    where: dict[str, tuple[Any, Any]] = {}  # class -> the images of its part, and which of them are its own
    for part, path in paths.items():
        content = read_pickle(path)
        images = content.get("image_data", content.get("data")) if isinstance(content, dict) else None
        if not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[3:] == (3,)):
            raise UserError(f"{path} holds no uint8 images (N, 84, 84, 3) under image_data or data.")
        try:
            where |= {name: (images, rows) for name, rows in _rows(content, part).items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} holds neither class_dict nor labels, which say what its images show.") from error
    _check({name: len(rows) for name, (_, rows) in where.items()}, paths["train"].parent, False)
    for name in sorted(where):
        images, rows = where[name]
        yield name, scaled(images[rows], size)


def _rows(content: dict[str, Any], part: str) -> dict[str, Any]:
    """The image numbers of each class; classes without a name are called train/00 and so on."""
    if "class_dict" in content:
        return {name: np.array(rows) for name, rows in content["class_dict"].items()}
    labels = np.array(content["labels"])
    names = {number: name for name, number in content.get("catname2label", {}).items()}
    return {names.get(label, f"{part}/{label:02d}"): np.flatnonzero(labels == label) for label in set(labels.tolist())}


def _check(counts: dict[str, int], place: Path, short_is_fine: bool) -> None:
    lists = frozen("miniimagenet")
    wanted = set(sum(lists.values(), []))
    unnamed = {part: len(names) for part, names in by_prefix(list(counts)).items()}
    numbered = len(counts) == len(wanted) and unnamed == {part: len(names) for part, names in lists.items()}
    if set(counts) != wanted and not numbered:
        some = ", ".join(sorted(wanted - set(counts))[:3] + sorted(set(counts) - wanted)[:3])
        raise UserError(f"{place} does not hold miniImageNet's 100 classes: {some} and others are missing or too many.")
    odd = [f"{name} has {n}" for name, n in counts.items() if n > IMAGES or (n < IMAGES and not short_is_fine)]
    if odd:
        raise UserError(f"{place}: each class must have {IMAGES} images; {', '.join(odd[:5])}.")
