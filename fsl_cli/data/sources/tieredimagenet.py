"""tieredImageNet: 608 classes of ImageNet, 779,165 images of 84 x 84 (Ren et al. 2018, https://arxiv.org/abs/1803.00676).

Training, validation and test classes come from different branches of the WordNet tree: 351 / 97 / 160 of them.
Two forms of a copy are understood: the published pickles of PNGs, read without running what is in them, and class
folders inside train, val and test. The pickles stay on disk while they are read. Classes must be those of the split,
which ships with fsl as the authors list it: folders by their WordNet numbers, those of pickles by their English names.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from fsl_cli.data.copies import (
    by_folder,
    by_prefix,
    divided,
    find_files,
    open_copy,
    shipped,
    shipped_split,
    what_is_there,
)
from fsl_cli.data.decode import RESIZE, Classes, File, decode
from fsl_cli.data.names import part_of
from fsl_cli.data.pickles import read_pickle
from fsl_cli.data.store import SPLITS, DataSet, Images, cache_folder
from fsl_cli.errors import UserError

CLASSES = {"train": 351, "val": 97, "test": 160}
IMAGES = {"train": 448_695, "val": 124_261, "test": 206_209}
MEAN, STD = (0.472, 0.453, 0.410), (0.277, 0.268, 0.285)  # miniImageNet's, as the field has it (MetaOptNet)
GET_IT = (
    "ImageNet's terms do not let a program download tieredImageNet: get tiered-imagenet.tar by way of "
    "https://github.com/renmengye/few-shot-ssl-public (13 GB) and unpack it. Needed are train_images_png.pkl, "
    "train_labels.pkl, and the same of val and test, or class folders inside train, val and test: put them into "
    "{folder}, or type data.root=PATH. What will be checked: the numbers of classes, 351 / 97 / 160, and of images, "
    "448,695 / 124,261 / 206,209, and "
    "whether the classes are those of the split."
)


def tieredimagenet(
    root: str | None = None,
    size: int = 84,
    rotations: Literal["none", "train", "all"] = "none",
    on_error: Literal["stop", "skip"] = "stop",
    cache: str | None = None,
) -> DataSet:
    """tieredImageNet at size x size, 3 channels.

    `root` is a folder; None takes the copy in the cache's folder downloads/tieredimagenet, or what was prepared
    before. `on_error="skip"` leaves out images that are missing or cannot be read, and records them with the store.
    Raises UserError when classes or images are not all there.
    """
    skipped: list[str] = []  # filled while the images are drawn, and then written with the recipe
    recipe = {"size": size, "resize": RESIZE, "on_error": on_error, "skipped": skipped}
    draw = partial(_draw, size=size, on_error=on_error, skipped=skipped)
    store = open_copy(cache_folder(cache), "tieredimagenet", root, recipe, draw, GET_IT)
    data = divided("tieredimagenet", store, "ren", by_prefix(store.names), rotations)
    return data._replace(mean=MEAN, std=STD, part_of="ImageNet")


def _draw(place: Path, size: int, on_error: str, skipped: list[str]) -> Iterable[tuple[str, Images]]:
    files = find_files(place)
    named = {path.rpartition("/")[2]: file for path, file in files.items()}
    pickled = any(f"{part}_images_png.pkl" in named for part in SPLITS)
    found = {} if pickled else _by_split(files)
    for part in sorted(SPLITS):  # one at a time: the pickles are large
        names = by_prefix(list(found))[part]
        classes = _from_pickles(place, named, part) if pickled else {name: found[name] for name in names}
        images = sum(map(len, classes.values()))
        short = images > IMAGES[part] or (images < IMAGES[part] and on_error == "stop")
        if len(classes) != CLASSES[part] or short:
            raise UserError(
                f"The {part} split in {place} has {len(classes)} classes and {images:,} images instead of "
                f"{CLASSES[part]} and {IMAGES[part]:,}. Needed are {part}_images_png.pkl and {part}_labels.pkl, or "
                f"class folders such as {part}/n01530575. Unpack or copy it again. {what_is_there(files)}"
            )
        own = {name.partition("/")[2] for name in classes}
        if pickled:
            _demand_words(place, part, {name.partition(" ")[2] for name in own})
        else:
            _demand_classes(place, part, own)
        yield from decode(classes, size, on_error, skipped)


def _by_split(files: dict[str, File]) -> Classes:
    """Class folders by the split that the folder above them means: train/n01530575, whatever the split is called."""
    found: Classes = {}
    for name, own in by_folder(files, depth=2).items():
        above, _, last = name.rpartition("/")
        part = part_of(above)
        found.setdefault(f"{part}/{last}" if part else name, []).extend(own)
    return found


def _demand_classes(place: Path, part: str, names: set[str]) -> None:
    """Raises UserError where class folders are not those of the split of Ren et al."""
    listed = set(shipped_split("tieredimagenet")[part])
    strange, missing = sorted(names - listed), sorted(listed - names)
    if strange:
        raise UserError(
            f"The {part} split in {place} is not that of Ren et al.: {len(strange)} of its class folders are no class "
            f"of it, such as {strange[0]}, and {missing[0]} is missing. Name the folders by WordNet numbers, as in the "
            "published archive, or read another split with data=folder."
        )


def _demand_words(place: Path, part: str, names: set[str]) -> None:
    """Raises UserError where the pickles' classes are not those of the split, by the first word of each name.

    Names that are like none of any split are another way to write them, of which nothing can be said; a tenth may be.
    """
    known = {split: {_first(name) for name in own} for split, own in _words().items()}
    elsewhere = [name for name in names if any(_first(name) in own for split, own in known.items() if split != part)]
    strange = sorted(name for name in names if _first(name) not in known[part])
    if elsewhere or (len(strange) < len(names) and 10 * len(strange) > len(names)):
        raise UserError(
            f"The {part} split in {place} is not that of Ren et al.: {len(strange)} of its {len(names)} classes are no "
            f"class of it, such as {min(elsewhere, default=strange[0])}. Get the published archive, or read another "
            "split with data=folder."
        )


def _first(name: str) -> str:
    """tabby, of Tabby, tabby_cat"""
    return name.partition(",")[0].replace("_", " ").strip().casefold()


def _words() -> dict[str, list[str]]:
    """The English names of the classes of each split, as WordNet writes them first."""
    return shipped("tieredimagenet/words.json")


def _from_pickles(place: Path, named: dict[str, File], part: str) -> Classes:
    """A list of PNGs, each an array of bytes, and the class number of each, with the classes' English names."""
    names = [f"{part}_images_png.pkl", f"{part}_labels.pkl"]
    missing = [name for name in names if name not in named]
    if missing:
        raise UserError(f"{place} lacks {' and '.join(missing)}.")
    both = [named[name] for name in names]
    pngs, labels = (read_pickle(file.name, None if place.is_dir() else file.read()) for file in both)
    try:
        numbers = np.array(labels["label_specific"]).tolist()
        words = [
            str(each.decode("latin1") if isinstance(each, bytes) else each) for each in labels["label_specific_str"]
        ]
        classes: Classes = {f"{part}/{number:03d} {words[number]}": [] for number in sorted(set(numbers))}
        for i, (png, number) in enumerate(zip(pngs, numbers, strict=True)):
            file = File(f"image {i} of {both[0].name}", partial(bytes, png))
            classes[f"{part}/{number:03d} {words[number]}"].append(file)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{names[0]} and {names[1]} in {place} are not as published: a list of PNGs, and a dict with "
            f"label_specific and label_specific_str ({type(error).__name__}: {error})."
        ) from error
    return classes
