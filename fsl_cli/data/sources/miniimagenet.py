"""miniImageNet: 100 classes of ImageNet, 600 images of 84 x 84 each (Vinyals et al. 2016; split of Ravi & Larochelle).

https://openreview.net/forum?id=rJY0-Kcll
Three forms of a copy are understood, in a folder, a zip or a tar and however deep: images with the tables train.csv,
val.csv and test.csv, or lists base.json, val.json and novel.json; a folder per class; and the pickles that most
repositories pass around, whatever they are called, which are read without running what is in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fsl_cli.data.columns import columns_of
from fsl_cli.data.copies import by_folder, by_prefix, divided, find_files, open_copy, shipped_split, what_is_there
from fsl_cli.data.decode import RESIZE, Classes, File, decode, scaled
from fsl_cli.data.formats import ENDINGS, ending
from fsl_cli.data.names import part_of
from fsl_cli.data.pickled import classes_of
from fsl_cli.data.pickles import read_pickle
from fsl_cli.data.store import SPLITS, DataSet, Images, cache_folder
from fsl_cli.data.tables import ENDINGS as TABLES
from fsl_cli.data.tables import parse_table
from fsl_cli.errors import UserError

IMAGES = 600  # of each class
MEAN, STD = (0.472, 0.453, 0.410), (0.277, 0.268, 0.285)  # of the training images, as in MetaOptNet
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
    lists = shipped_split("miniimagenet")
    if sorted(store.names) != sorted(sum(lists.values(), [])):
        lists = by_prefix(store.names)  # pickles that number their classes
    return divided("miniimagenet", store, "ravi", lists, rotations)._replace(mean=MEAN, std=STD, part_of="ImageNet")


def _draw(place: Path, size: int, on_error: str, skipped: list[str]) -> Iterable[tuple[str, Images]]:
    files = find_files(place)
    pickled = _parts(files, (".pkl", ".pickle", ".p", ".pk"))
    if pickled:
        return _from_pickles(place, pickled, files, size)
    tables = [_parts(files, (each,)) for each in TABLES]
    listed = next((each for each in tables if len(each) == len(SPLITS)), tables[0] or tables[1])
    classes = by_folder(files)
    whole = set(sum(shipped_split("miniimagenet").values(), [])) <= set(classes)
    if listed and not (whole and len(listed) < len(SPLITS)):
        classes = _by_table(files, listed)
    _check({name: len(group) for name, group in classes.items()}, place, on_error == "skip", files)
    return decode(classes, size, on_error, skipped)


def _parts(files: dict[str, File], endings: tuple[str, ...]) -> dict[str, list[str]]:
    """The files with one of these endings by the split that their names mean.

    Those of train_phase_val and the like are of two: other images of the training classes, which are left alone.
    """
    found: dict[str, list[str]] = {}
    for path in files:
        name = path.rpartition("/")[2]
        part = part_of(name.rpartition(".")[0]) if ending(name) in endings else None
        if part:
            found.setdefault(part, []).append(path)
    return found


def _by_table(files: dict[str, File], tables: dict[str, list[str]]) -> Classes:
    """The images that the three tables name, each of which must hold the classes of its split."""
    named = {path.rpartition("/")[2]: file for path, file in files.items() if ending(path) in ENDINGS}
    named |= {name.rpartition(".")[0]: file for name, file in named.items()}
    classes: Classes = {}
    for part, wanted in shipped_split("miniimagenet").items():
        here = tables.get(part, [])
        if len(here) != 1:
            several = f" ({', '.join(here)})" if here else ""
            raise UserError(
                f"There must be one table of the {part} split, such as {part}.csv, beside the images, not {len(here)}"
                f"{several}."
            )
        table = parse_table(files[here[0]].read(), here[0], files[here[0]].name)
        columns = columns_of(table, lambda name: named.get(_last(name))) if table.rows else None
        rows = [row for _, row in columns.rows if len(row) > max(columns[:2])] if columns else []
        if not columns or {row[columns.label] for row in rows} != set(wanted):
            raise UserError(f"{table.name} does not list the classes of Ravi's {part} split under filename,label.")
        for row in rows:
            name = _last(row[columns.file])
            classes.setdefault(row[columns.label], []).append(named.get(name) or File(name, partial(_missing, part)))
    return classes


def _last(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _missing(part: str) -> bytes:
    raise OSError(f"it is missing, though the table of {part} lists it")


def _from_pickles(
    place: Path, paths: dict[str, list[str]], files: dict[str, File], size: int
) -> Iterable[tuple[str, Images]]:
    missing = [part for part in SPLITS if part not in paths]
    if missing:
        raise UserError(
            f"{place} has no pickle of {' and '.join(missing)}, such as {missing[0]}.pkl is: all three are needed. "
            + what_is_there(files)
        )
    several = [f"{' and '.join(own)} are both of {part}" for part, own in paths.items() if len(own) > 1]
    if several:
        raise UserError(
            f"{place}: {'; '.join(several)}. Keep one of each, or type data.root= with the folder of three."
        )
    where: dict[str, tuple[Any, Any]] = {}  # class -> the images of its part, and which of them are its own
    for part in SPLITS:
        file = files[paths[part][0]]
        content = read_pickle(file.name, None if place.is_dir() else file.read())
        where |= classes_of(content, part, file.name)
    _check({name: len(rows) for name, (_, rows) in where.items()}, place, False, files)
    for name in sorted(where):
        images, rows = where[name]
        yield name, scaled(images[rows], size)


def _check(counts: dict[str, int], place: Path, short_is_fine: bool, files: Iterable[str]) -> None:
    lists = shipped_split("miniimagenet")
    wanted = set(sum(lists.values(), []))
    unnamed = {part: len(names) for part, names in by_prefix(list(counts)).items()}
    numbered = len(counts) == len(wanted) and unnamed == {part: len(names) for part, names in lists.items()}
    if set(counts) != wanted and not numbered:
        some = ", ".join(sorted(wanted - set(counts))[:3] + sorted(set(counts) - wanted)[:3])
        raise UserError(
            f"{place} does not hold miniImageNet's 100 classes: {some} and others are missing or too many. "
            f"{what_is_there(files)} {_resembles(counts, files)}"
        )
    odd = [f"{name} has {n}" for name, n in counts.items() if n > IMAGES or (n < IMAGES and not short_is_fine)]
    if odd:
        raise UserError(f"{place}: each class must have {IMAGES} images; {', '.join(odd[:5])}.")


def _resembles(counts: dict[str, int], files: Iterable[str]) -> str:
    """The known form that a refused copy is most like, and what it lacks."""
    wanted = set(sum(shipped_split("miniimagenet").values(), []))
    own = len(wanted & set(counts))
    other = {ending(path) for path in files} & {
        ".hdf5",
        ".h5",
        ".npy",
        ".npz",
        ".tfrecord",
        ".tfrecords",
        ".pt",
        ".lmdb",
    }
    if own:
        return f"It is most like a folder for each class, of which it has {own} of {len(wanted)}."
    if other:
        return f"{' and '.join(sorted(other))} are not read: get the images or the pickles that they were made from."
    if any(ending(path) in ENDINGS for path in files):
        return (
            "It is most like images beside the tables train.csv, val.csv and test.csv, which it lacks; or a folder for "
            "each class, which must be called as in ImageNet, such as n01532829."
        )
    return (
        "Known are images with train.csv, val.csv and test.csv, a folder for each class, and a pickle for each split."
    )
