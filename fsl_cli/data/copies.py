"""From a user's copy of a data set, a folder or an archive, to its store and its splits."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.datasets.utils import check_integrity, extract_archive

from fsl_cli.data.decode import Classes, File
from fsl_cli.data.download import download
from fsl_cli.data.store import SPLITS, DataSet, Images, ImageStore, Split, open_store, split_hash, temporary_folder
from fsl_cli.errors import UserError

Draw = Callable[[Path], Iterable[tuple[str, Images]]]  # a copy -> its classes, one after another


def open_copy(cache: Path, name: str, root: str | None, recipe: dict[str, Any], draw: Draw, get_it: str) -> ImageStore:
    """The store made from the copy at `root`: a folder, a zip, or a folder with one zip in it.

    Without `root`, from the copy in the cache's folder downloads/`name`, or as it was prepared last from any copy,
    which may be gone since. `get_it` says where people get a copy and what will be checked; {folder} in it is the
    default place. Raises UserError.
    """
    place = Path(root).expanduser() if root else cache / "downloads" / name
    get_it = get_it.format(folder=cache / "downloads" / name)
    if root and not place.exists():
        raise UserError(f"data.root={root} does not exist. {get_it}")
    inside = sorted(place.glob("*.zip"))
    place = inside[0] if len(inside) == 1 else place

    def drawn() -> Iterable[tuple[str, Images]]:
        if not place.exists():
            raise UserError(get_it)
        try:
            yield from draw(place)
        except OSError as error:
            raise UserError(f"{error.filename or place} cannot be read: {error.strerror or error}.") from error

    copy = _fingerprint(place) if place.exists() else _prepared(cache, name, recipe)
    return open_store(cache, name, {**recipe, "copy": copy}, drawn)


def find_files(place: Path) -> dict[str, File]:
    """Every file of a folder or zip by its path in there, sorted; hidden ones left out."""
    if place.is_dir():
        paths = sorted(path.relative_to(place).as_posix() for path in place.rglob("*"))
        found = {path: File(str(place / path), (place / path).read_bytes) for path in paths}
    else:
        try:
            archive = zipfile.ZipFile(place)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{place} cannot be read as a zip ({error}).") from error
        found = {path: File(f"{place}: {path}", partial(archive.read, path)) for path in sorted(archive.namelist())}
    return {path: file for path, file in found.items() if "/." not in f"/{path}" and "__MACOSX/" not in path}


def by_folder(files: dict[str, File], depth: int = 1) -> Classes:
    """The images by the last `depth` folders they lie in, such as n01532829, or train/n01532829."""
    classes: Classes = {}
    for path, file in files.items():
        if path.lower().endswith(IMG_EXTENSIONS):
            classes.setdefault("/".join(path.split("/")[:-1][-depth:]), []).append(file)
    return classes


@contextmanager
def unpacked(archive: Path, url: str, md5: str, allowed: bool, cache: Path) -> Iterator[Path]:
    """A temporary folder with the files of an archive, which is verified, and downloaded if not there and `allowed`."""
    by_hand = f"Download {url}, put it into {archive.parent} or a folder of yours, and type data.root=FOLDER"
    if not archive.exists() and not allowed:
        raise UserError(f"{archive} is not there and data.download=false. {by_hand}.")
    if not archive.exists():
        download(url, archive, md5, by_hand)
    elif not check_integrity(str(archive), md5):
        raise UserError(f"{archive} is damaged or another file: its MD5 is not {md5}. {by_hand}.")
    with temporary_folder(cache, f"{archive.name}-unpacked") as folder:
        extract_archive(str(archive), str(folder))
        yield folder


def frozen(name: str) -> dict[str, Any]:
    """The lists of a split that ships with fsl."""
    folder = Path(__file__).parent / "splits" / name
    return {part: json.loads((folder / f"{part}.json").read_text()) for part in SPLITS}


def by_prefix(names: list[str]) -> dict[str, list[str]]:
    """The lists of a copy that has its splits in itself: classes are called train/..., val/..., test/..."""
    return {part: [name for name in names if name.startswith(f"{part}/")] for part in SPLITS}


def divided(name: str, store: ImageStore, split: str, lists: dict[str, list[str]], rotations: str) -> DataSet:
    """The data set; `rotations` makes quarter turns classes of their own: none, in train, or in all splits."""
    number = {each: i for i, each in enumerate(store.names)}
    turned = {"none": (), "train": ("train",), "all": SPLITS}[rotations]
    splits = {
        part: Split(np.array([number[each] for each in lists[part]]), 4 if part in turned else 1) for part in SPLITS
    }
    return DataSet(name, store, splits, {"split": split, "split_hash": split_hash(lists), "rotations": rotations})


def _fingerprint(place: Path) -> str:
    """Names, sizes and times of all files, of the zip if it is one: whatever differs in them is another copy."""
    paths = sorted(Path(top) / name for top, _, names in os.walk(place) for name in names) or [place]
    stats = [(path.relative_to(place).as_posix(), path.stat()) for path in paths]
    listing = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return blake2b(json.dumps(listing).encode(), digest_size=8).hexdigest()


def _prepared(cache: Path, name: str, recipe: dict[str, Any]) -> str:
    """The copy from which a store of this recipe was made last; "" if none was."""
    for about in sorted(cache.glob(f"{name}-*/store.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            made = json.loads(about.read_text())["recipe"]
        except (OSError, ValueError, KeyError):
            continue
        if made.get("copy") and all(made.get(key) == value for key, value in recipe.items() if key != "skipped"):
            return str(made["copy"])
    return ""
