"""Your own images: a folder per class, or folders train, val and test full of them, or a CSV; or a zip of these.

Without splits of their own, these are shares of the classes, in an order that depends on the seed and the class
names only. Everything wrong with the folders, with the CSV, or with the images, is one error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from hashlib import blake2b
from typing import Literal, TypeVar

from fsl_cli.data.copies import divided
from fsl_cli.data.decode import decode
from fsl_cli.data.layouts import UNSORTED, find, refuse
from fsl_cli.data.left_out import some
from fsl_cli.data.listed import Chosen
from fsl_cli.data.names import own_name
from fsl_cli.data.photos import photo
from fsl_cli.data.places import Picture
from fsl_cli.data.store import DataSet, Images, cache_folder, open_store
from fsl_cli.errors import UserError, command
from fsl_cli.ranges import Natural, PartOf


def folder(
    root: str | None = None,
    size: int = 84,
    channels: Literal[1, 3] = 3,
    val_fraction: PartOf = 0.2,
    test_fraction: PartOf = 0.2,
    split_seed: Natural = 0,
    rotations: Literal["none", "train", "all"] = "none",
    on_error: Literal["stop", "skip"] = "stop",
    on_small: Literal["stop", "skip"] = "stop",
    file_column: str | int | None = None,
    label_column: str | int | None = None,
    unsorted: bool = False,
    name: str | None = None,
    cache: str | None = None,
) -> DataSet:
    """The images at `root`, each (channels, size, size): shorter side resized to `size`, then the middle cut out.

    `root` is a folder, a zip, a tar, or a table (CSV) of files, relative to it, their labels and perhaps splits;
    `file_column` and `label_column` name its columns, or number them from 1, where their names do not tell. A folder or
    archive in which such a table lies is read by it, whatever folders are beside it; else by its folders, and images
    may lie deeper in a class folder. Hidden files do not count. Where there is neither a column split nor folders
    train and test, `val_fraction` and `test_fraction` of the classes, at least two each where there are six, are drawn
    by `split_seed`; where there is but no val, val is `val_fraction` of the classes in train. `on_error="skip"`
    leaves out images that cannot be read, or that a table lists and are not there; `on_small="skip"` classes with fewer
    images than an episode takes. `unsorted`: pictures that lie in no class folders, or in one, are taken without
    labels, those two shares of them for validation and test. What is left out is told, and in the data set's
    `left_out`. Reports call it `name`, by default as `own_name` does. Raises UserError.
    """
    fractions = {"val": val_fraction, "test": test_fraction}
    checks = {
        f"data.channels={channels}: type 1 (grey) or 3 (colour).": channels in (1, 3),
        f"data.size={size}: type 1 pixel or more.": size >= 1,
        f"data.val_fraction={val_fraction} data.test_fraction={test_fraction}: type shares with a sum below 1.": (
            min(fractions.values()) >= 0 and (sum(fractions.values()) < 1 or fractions == {"val": 0, "test": 1})
        ),
    }
    if not all(checks.values()):
        refuse("These values cannot be:", [message for message, good in checks.items() if not good])
    groups, table, reading, lost = find(
        root, chosen=Chosen(file_column, label_column, on_error == "skip"), unsorted=unsorted
    )
    alone = list(groups.get("", {})) == [UNSORTED]
    if alone:
        groups = divided_pictures(groups[""][UNSORTED], fractions, split_seed)
    lists, classes, lost = split_classes(groups, lost, fractions, split_seed, on_small, str(root))
    listing = [picture.stamp for name in sorted(classes) for picture in classes[name]]
    digest = blake2b(json.dumps(listing).encode(), digest_size=16).hexdigest()

    recipe = {"size": size, "channels": channels, "resize": "bilinear antialias, centre", "files": digest}
    skipped: list[str] = []  # filled while the images are drawn, and then written with the recipe
    recipe |= {"on_error": on_error, "skipped": skipped} if on_error == "skip" else {}

    def drawn() -> Iterable[tuple[str, Images]]:
        print(f"Read as {reading}.")
        files = {name: [picture.file for picture in pictures] for name, pictures in classes.items()}
        advice = "Delete them, save them again"
        return decode(files, size, on_error, skipped, partial(photo, channels=channels), advice)

    store = open_store(cache_folder(cache), "folder", recipe, drawn)
    split = (
        f"unsorted-{split_seed}" if alone else f"seeded-{split_seed}" if "" in groups else "csv" if table else "folders"
    )
    data = divided(own_name(root, name), store, split, lists, rotations)
    return data._replace(
        mean=(0.5,) * channels, std=(0.5,) * channels, reading=reading, left_out=lost, on_small=on_small, unsorted=alone
    )


def divided_pictures(
    pictures: list[Picture], fractions: dict[str, float], seed: int
) -> dict[str, dict[str, list[Picture]]]:
    """Unsorted pictures as one class for each split, in an order that depends on the seed and their names only."""
    order = sorted(
        pictures,
        key=lambda each: blake2b(
            f"{seed}/{each.file.name.rpartition('/')[2]}".encode(errors="surrogateescape")
        ).digest(),
    )
    first, second = (round(fractions[part] * len(order)) for part in ("val", "test"))
    parts = {"val": order[:first], "test": order[first : first + second], "train": order[first + second :]}
    return {part: {f"{part} pictures": own} for part, own in parts.items()}


Item = TypeVar("Item")


def split_classes(
    groups: dict[str, dict[str, list[Item]]], lost: list[str], fractions: dict[str, float], seed: int,
    on_small: Literal["stop", "skip"], root: str, predict: str | None = None,
) -> tuple[dict[str, list[str]], dict[str, list[Item]], list[str]]:  # fmt: skip
    """The classes of each split, the items of each class, and what is left out, which is told.

    `lost` was left out before; `on_small="skip"` leaves out classes of a single item. Raises UserError as `divide`.
    """
    if on_small == "skip":
        groups, alone = without_single(groups)
        lost = [*lost, *alone]
    lists = divide(groups, fractions, seed, root, lost, predict)
    for line in lost:
        print(f"Left out: {line}.")
    return lists, {name: own for group in groups.values() for name, own in group.items()}, lost


def without_single(
    groups: Mapping[str, Mapping[str, list[Item]]],
) -> tuple[dict[str, dict[str, list[Item]]], list[str]]:
    """The classes of two images or more, which are then divided, and those of one, in words: no episode takes them."""
    alone = sorted(name for group in groups.values() for name, pictures in group.items() if len(pictures) < 2)
    kept = {
        part: {name: pictures for name, pictures in group.items() if len(pictures) > 1}
        for part, group in groups.items()
    }
    return kept, [some(alone, "class", "with a single one")] if alone else []


def divide(
    groups: Mapping[str, Mapping[str, object]], fractions: dict[str, float], seed: int, root: str, lost: list[str],
    predict: str | None = None,
) -> dict[str, list[str]]:  # fmt: skip
    """The classes of each split; those that have none of their own take theirs from "" or from train.

    An episode needs two classes, so each split gets two where there are enough. Raises UserError with what was `lost`,
    and `predict`, the command that tells a few classes apart.
    """
    lists = {part: sorted(classes) for part, classes in groups.items()}
    pool = lists.pop("") if "" in lists else lists["train"]
    lacking = [part for part in ("test", "val") if part not in lists]
    if "" in groups and fractions["test"] == 1:
        return {"train": [], "val": [], "test": pool}
    least = 2 if len(pool) >= 2 * (1 + len(lacking)) else 1
    if len(pool) <= len(lacking):
        few = f"{len(pool)} classes ({', '.join(pool)})" if len(pool) != 1 else f"1 class ({pool[0]})"
        told = "".join(f"\n  Left out: {line}." for line in lost)
        predict = predict or command("fsl", "predict", f"support={root}", "query=FOLDER")
        raise UserError(
            f"{few} cannot be divided among train, {', '.join(reversed(lacking))}, which need two each for episodes of "
            f"way=2: {2 * (1 + len(lacking))} classes or more. To tell a few classes apart nothing is trained: type "
            f"{predict}.{told}"
        )
    # Sorting by a hash is a shuffle that no library can change.
    left = sorted(pool, key=lambda name: blake2b(f"{seed}/{name}".encode(errors="surrogateescape")).digest())
    for after, part in zip(range(len(lacking), 0, -1), lacking, strict=True):
        count = max(least, min(round(fractions[part] * len(pool)), len(left) - least * after))
        lists[part], left = sorted(left[:count]), left[count:]
    return {**lists, "train": sorted(left)}
