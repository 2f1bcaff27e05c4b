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
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torchvision.datasets import Omniglot
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize

from fsl_cli.data.copies import divided, frozen
from fsl_cli.data.download import download as fetch
from fsl_cli.data.store import DataSet, Images, cache_folder, open_store
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

    `root` holds images_background.zip (or the small one of the split) and images_evaluation.zip, or both unpacked;
    None downloads them into the cache folder. `rotations` makes the quarter turns of each character classes of
    their own, in the training split or in all three. `within_alphabet` draws the classes of an episode from one
    alphabet, as in Lake et al.'s task. Raises UserError when the drawings are not all there.
    """
    folder = cache_folder(cache)
    background = f"images_background_{split}" if split in MINIMAL else "images_background"
    parts = (background, "images_evaluation")
    recipe: dict[str, object] = {"size": size, "resize": "bilinear antialias"}
    recipe |= {"background": background} if split in MINIMAL else {}

    def drawn() -> Iterable[tuple[str, Images]]:
        source = Path(root).expanduser() if root else _download(folder / "downloads", parts, download)
        for name, drawings in sorted(_find(source, parts).items()):
            yield name, _decode(drawings, size)

    store = open_store(folder, "omniglot", recipe, drawn)
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
            for part, listed in frozen("omniglot").items()
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


def _find(root: Path, parts: tuple[str, str]) -> Drawings:
    """Every drawing of both parts below `root`, verified by content: all characters, 20 drawings each."""
    if not root.is_dir():
        raise UserError(
            f"data.root={root} is not a folder. Type data.root=FOLDER with {parts[0]}.zip and {parts[1]}.zip."
        )
    found: Drawings = defaultdict(list)
    for part in parts:
        archive = root / f"{part}.zip"
        if archive.exists():
            _find_in_zip(archive, found)
        elif (root / part).is_dir():
            for path in sorted((root / part).glob("*/*/*.png")):
                found[path.parent.relative_to(root).as_posix()].append((str(path), path.read_bytes))
        else:
            raise UserError(
                f"{root} holds neither {part}.zip nor {part}/. It must hold both parts: {', '.join(parts)}."
            )
    short = [f"{name} has {len(drawings)}" for name, drawings in found.items() if len(drawings) != DRAWINGS]
    wanted = sum(CHARACTERS[part] for part in parts)
    if short or len(found) != wanted:
        raise UserError(
            f"{root} holds {len(found)} characters of Omniglot's {wanted}"
            + (f", and not all have {DRAWINGS} drawings: {'; '.join(short[:5])}" if short else "")
            + ". Unpack or copy the archives again."
        )
    return found


def _find_in_zip(archive: Path, found: Drawings) -> None:
    try:
        opened = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{archive} cannot be read as a zip: {error}. Copy or download it again.") from error
    for name in sorted(opened.namelist()):
        if name.endswith(".png"):
            found[name.rsplit("/", 1)[0]].append((f"{archive}: {name}", partial(opened.read, name)))


def _decode(drawings: list[tuple[str, Callable[[], bytes]]], size: int) -> Images:
    """One character's drawings, (20, 1, size, size), ink 255."""
    images = []
    for name, read in drawings:
        try:
            content = read()
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{name} cannot be read: {error}. {AGAIN}") from error
        try:
            image = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.GRAY)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{name} is not a readable PNG. {AGAIN}") from error
        if image.shape != (1, SIDE, SIDE):
            raise UserError(f"{name} has {image.shape[2]} x {image.shape[1]} pixels, not {SIDE} x {SIDE}. {AGAIN}")
        images.append(image)
    ink = 255 - torch.stack(images)
    return resize(ink, [size, size], antialias=True).numpy()
