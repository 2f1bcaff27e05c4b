"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people (Lake et al., Science 2015).

The 105 x 105 drawings are inverted (ink is 1, paper 0) and resized with antialiased bilinear interpolation.
Splits: `vinyals` (1028 / 172 / 423 characters, the frozen lists that Snell et al. published); `lake` (background /
evaluation; validation takes the last five background alphabets); `small1` and `small2` (Lake's minimal background
sets of five alphabets, of which validation takes the last; test is the evaluation set).
"""

from __future__ import annotations

import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torchvision.datasets import Omniglot
from torchvision.io import ImageReadMode
from torchvision.transforms.v2.functional import resize

from fsl_cli.data.copies import divided, find_files, open_copy, shipped_split, what_is_there, zipped_files
from fsl_cli.data.decode import decoded
from fsl_cli.data.download import download as fetch
from fsl_cli.data.formats import ending
from fsl_cli.data.store import DataSet, Images, cache_folder
from fsl_cli.errors import UserError

CHARACTERS = {  # of each archive
    "images_background": 964,
    "images_background_small1": 136,
    "images_background_small2": 156,
    "images_evaluation": 659,
}
DRAWINGS = 20  # of each character
MINIMAL = ("small1", "small2")
SIDE = 105  # pixels
AGAIN = "Copy or download Omniglot again."
Drawings = dict[str, list[tuple[str, Callable[[], bytes]]]]  # character -> (file name, reader), sorted


def omniglot(
    root: str | None = None,
    split: Literal["vinyals", "lake", "small1", "small2"] = "vinyals",
    rotations: Literal["none", "train", "all"] = "all",
    within_alphabet: bool = False,
    size: int = 28,
    download: bool = True,
    cache: str | None = None,
) -> DataSet:
    """Omniglot at size x size, 1 channel.

    `root` holds images_background.zip (or the small one of the split) and images_evaluation.zip, or both unpacked,
    however deep, or is a zip or tar of these; None downloads them into the cache folder. `rotations` makes the quarter
    turns of each character classes of their own, in the training split or in all three. `within_alphabet` draws the
    classes of an episode from one alphabet, as in Lake et al.'s task. Raises UserError when the drawings are not all
    there.
    """
    folder = cache_folder(cache)
    background = f"images_background_{split}" if split in MINIMAL else "images_background"
    parts = (background, "images_evaluation")
    recipe: dict[str, object] = {"size": size, "resize": "bilinear antialias"}
    recipe |= {"background": background} if split in MINIMAL else {}

    def drawn(place: Path) -> Iterable[tuple[str, Images]]:
        for name, drawings in sorted(_find(place, parts).items()):
            yield name, _decode(drawings, size)

    needs = f"Type data.root=FOLDER with {parts[0]}.zip and {parts[1]}.zip, or both unpacked."
    fetch = partial(_download, folder / "downloads", parts, download)
    store = open_copy(folder, "omniglot", root, recipe, drawn, needs, fetch, _counts)
    data = divided("omniglot", store, split, _splits(split, store.names), rotations)._replace(ink=True)
    return _within_alphabets(data) if within_alphabet else data


def _within_alphabets(data: DataSet) -> DataSet:
    alphabets = np.unique([name.rsplit("/", 1)[0] for name in data.store.names], return_inverse=True)[1]
    splits = {part: split._replace(groups=alphabets[split.classes]) for part, split in data.splits.items()}
    return data._replace(splits=splits, protocol={**data.protocol, "sampling": "within_alphabet"})


def _splits(split: str, names: list[str]) -> dict[str, list[str]]:
    """Names such as images_background/Greek/character01 of the train, val and test classes."""
    if split == "vinyals":
        return {
            part: [f"images_{s}/{a}/{c}" for s in listed for a in listed[s] for c in listed[s][a]]
            for part, listed in shipped_split("omniglot").items()
        }
    background = [name for name in names if name.startswith("images_background")]
    held_out = set(sorted({name.split("/")[1] for name in background})[-1 if split in MINIMAL else -5 :])
    return {
        "train": [name for name in background if name.split("/")[1] not in held_out],
        "val": [name for name in background if name.split("/")[1] in held_out],
        "test": [name for name in names if name.startswith("images_evaluation/")],
    }


def _download(folder: Path, parts: tuple[str, str], allowed: bool) -> Path:
    """Fetch both archives, where they are not there yet."""
    for part in parts:
        url = f"{Omniglot.download_url_prefix}/{part}.zip"
        by_hand = f"Put {parts[0]}.zip and {parts[1]}.zip into a folder and type data.root=FOLDER ({url})"
        if not allowed:
            raise UserError(f"Omniglot is not prepared and data.download=false. {by_hand}.")
        md5 = Omniglot.zips_md5.get(part)  # none is published for the small sets: their content is counted
        fetch(url, folder / f"{part}.zip", md5, by_hand)
    return folder


def _counts(path: str) -> bool:
    """Whether a file of a folder may be part of Omniglot."""
    return ending(path) == ".png" or Path(path).name in {f"{part}.zip" for part in CHARACTERS}


def _find(root: Path, parts: tuple[str, str]) -> Drawings:
    """Every drawing of both parts below `root`, verified by content: all characters, 20 drawings each.

    The trees and archives may lie anywhere in it, as torchvision's in omniglot-py/, and one in another, as where an
    archive was unpacked into a folder of its name. A path that names no part belongs to that with its alphabet.
    """
    files = find_files(root)
    for path in [path for path in files if Path(path).name in {f"{part}.zip" for part in parts}]:
        files |= {f"{path}/{inner}": file for inner, file in zipped_files(files[path]).items()}
    found: Drawings = defaultdict(list)
    alphabets = _alphabets(parts)
    for path, file in files.items():
        *above, alphabet, character, name = ["", "", *path.split("/")]
        named = [part for part in CHARACTERS for each in above if each.removesuffix(".zip") == part]
        part = named[-1] if named else alphabets.get(alphabet)
        if ending(name) == ".png" and part in parts:
            found[f"{part}/{alphabet}/{character}"].append((file.name, file.read))
    for name, drawings in found.items():
        found[name] = list({Path(each[0]).name: each for each in sorted(drawings, key=itemgetter(0))}.values())
    short = [f"{name} has {len(drawings)}" for name, drawings in found.items() if len(drawings) != DRAWINGS]
    wanted = sum(CHARACTERS[part] for part in parts)
    if short or len(found) != wanted:
        have = ", ".join(f"{sum(name.startswith(f'{part}/') for name in found):,} of {part}" for part in parts)
        raise UserError(
            f"{root} holds {len(found):,} characters of Omniglot's {wanted:,} ({have})"
            + (f", and not all have {DRAWINGS} drawings: {'; '.join(short[:5])}" if short else "")
            + f". Needed are {parts[0]}.zip and {parts[1]}.zip, or both unpacked: folders such as "
            f"{parts[0]}/Greek/character01. Copy or unpack them again. {what_is_there(files)}"
        )
    return found


def _alphabets(parts: tuple[str, str]) -> dict[str, str]:
    """The part that each alphabet is of."""
    if parts[0] != "images_background":  # the minimal sets share their alphabets with it
        return {}
    listed = [own for lists in shipped_split("omniglot").values() for own in lists.items()]
    return {alphabet: f"images_{part}" for part, alphabets in listed for alphabet in alphabets}


def _decode(drawings: list[tuple[str, Callable[[], bytes]]], size: int) -> Images:
    """One character's drawings, (20, 1, size, size), ink 255."""
    images = []
    for name, read in drawings:
        try:
            content = read()
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{name} cannot be read: {error}. {AGAIN}") from error
        try:
            image = decoded(content, ImageReadMode.GRAY)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{name} is not a readable PNG. {AGAIN}") from error
        if image.shape != (1, SIDE, SIDE):
            raise UserError(f"{name} has {image.shape[2]} x {image.shape[1]} pixels, not {SIDE} x {SIDE}. {AGAIN}")
        images.append(image)
    ink = 255 - torch.stack(images)
    return resize(ink, [size, size], antialias=True).numpy()
