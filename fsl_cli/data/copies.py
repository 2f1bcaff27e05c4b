"""From a user's copy of a data set, a folder or an archive, to its store and its splits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets.utils import check_integrity, extract_archive

from fsl_cli.data.archives import BROKEN, Zip, archive_of
from fsl_cli.data.decode import Classes, File
from fsl_cli.data.download import download
from fsl_cli.data.formats import ENDINGS, ending
from fsl_cli.data.places import Folder
from fsl_cli.data.recognise import Counts, copy_of, made_by, recognised
from fsl_cli.data.store import (
    SPLITS,
    VERSION,
    DataSet,
    Images,
    ImageStore,
    Split,
    open_store,
    split_hash,
    temporary_folder,
)
from fsl_cli.errors import UserError

Draw = Callable[[Path], Iterable[tuple[str, Images]]]  # a copy -> its classes, one after another


def open_copy(
    cache: Path,
    name: str,
    root: str | None,
    recipe: dict[str, Any],
    draw: Draw,
    get_it: str,
    fetch: Callable[[], Path] | None = None,
    counts: Counts = lambda path: True,
) -> ImageStore:
    """The store made from the copy at `root`: a folder, an archive, or a folder with one archive and little else.

    With `root`, a prepared store is used only if it was made from what lies there now, or from the same bytes
    elsewhere; another copy makes another store. Without `root`, the store that was prepared last is used, even if its
    copy is gone; else it is made from what `fetch` downloads, or from the copy in the cache's folder downloads/`name`.
    `get_it` tells people where to get a copy and what will be checked; {folder} in it is that default place. `counts`
    tells which files of a folder are part of the copy. Raises UserError.
    """
    place = Path(root).expanduser() if root else cache / "downloads" / name
    get_it = get_it.format(folder=cache / "downloads" / name)
    if root and not place.exists():
        raise UserError(f"data.root={root} does not exist. {get_it}")
    try:
        if root or (place.exists() and not fetch):
            copy = copy_of(_within(place), counts)
            key = {"copy": recognised(cache, name, recipe, copy)}
            return open_store(cache, name, {**recipe, **key}, partial(_drawn, draw, copy.place), copy.source)
    except OSError as error:
        raise UserError(f"{error.filename or place} cannot be read: {error.strerror or error}.") from error
    whole = {"name": name, "version": VERSION, **recipe}
    made = [about["recipe"] for _, about in made_by(cache, name, whole)]
    plain = [each for each in made if "copy" not in each]
    key = {key: each for key, each in (plain or made or [{}])[0].items() if key == "copy"}

    def fetched() -> Iterable[tuple[str, Images]]:
        if not fetch:
            raise UserError(get_it)
        yield from _drawn(draw, fetch())

    return open_store(cache, name, {**recipe, **({} if plain else key)}, fetched)


def _drawn(draw: Draw, place: Path) -> Iterable[tuple[str, Images]]:
    try:
        yield from draw(place)
    except OSError as error:
        raise UserError(f"{error.filename or place} cannot be read: {error.strerror or error}.") from error


def _within(place: Path) -> Path:
    """The one zip in a folder, if there is one."""
    inside = sorted(place.glob("*.zip"))
    return inside[0] if len(inside) == 1 else place


def find_files(place: Path) -> dict[str, File]:
    """Every file of a folder, a zip or a tar by its path in there, sorted; without files that systems leave behind."""
    try:
        found = Folder(place) if place.is_dir() else archive_of(place)
    except BROKEN as error:
        kind = "zip" if place.suffix.lower() == ".zip" else "tar"
        raise UserError(f"{place} cannot be read as a {kind} ({error}). Copy it again.") from error
    if not found:
        raise UserError(f"data.root={place} is neither a folder nor a zip or tar. Type data.root=FOLDER or an archive.")
    return {path: picture.file for path, picture in found.files.items()}


def zipped_files(file: File) -> dict[str, File]:
    """Every file of a zip that is itself a file of a copy, perhaps in another archive."""
    try:
        inner = Zip(Path(file.name), file.read())
    except BROKEN as error:
        raise UserError(f"{file.name} cannot be read as a zip ({error}). Copy it again.") from error
    return {path: picture.file for path, picture in inner.files.items()}


def by_folder(files: dict[str, File], depth: int = 1) -> Classes:
    """The images by the last `depth` folders they lie in, such as n01532829, or train/n01532829."""
    classes: Classes = {}
    for path, file in files.items():
        if ending(path) in ENDINGS:
            classes.setdefault("/".join(path.split("/")[:-1][-depth:]), []).append(file)
    return classes


def what_is_there(files: Iterable[str]) -> str:
    """What a refused copy holds: how many files of which endings, and in which folders."""
    files = list(files)
    endings = Counter(ending(path) or "without an ending" for path in files)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in endings.most_common(4)) or "no files"
    folders = sorted({path.rpartition("/")[0] for path in files if "/" in path})
    inside = f", in {len(folders):,} folders such as {', '.join(folders[:3])}" if folders else ""
    names = f" ({', '.join(sorted(files)[:4])})" if len(files) <= 12 and files else ""
    return f"What is there: {kinds}{names}{inside}."


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


def shipped_split(name: str) -> dict[str, Any]:
    """The lists of a split that ships with fsl."""
    return {part: shipped(f"{name}/{part}.json") for part in SPLITS}


def shipped(name: str) -> Any:
    """What a JSON file below data/splits holds."""
    return json.loads((Path(__file__).parent / "splits" / name).read_text(encoding="utf-8"))


def by_prefix(names: list[str]) -> dict[str, list[str]]:
    """The lists of a copy that has its splits in itself: classes are called train/..., val/..., test/..."""
    return {part: [name for name in names if name.startswith(f"{part}/")] for part in SPLITS}


def divided(name: str, store: ImageStore, split: str, lists: dict[str, list[str]], rotations: str) -> DataSet:
    """The data set; `rotations` makes quarter turns classes of their own: none, in train, or in all splits."""
    number = {each: i for i, each in enumerate(store.names)}
    turned = {"none": (), "train": ("train",), "all": SPLITS}[rotations]
    classes = {part: np.array([number[each] for each in lists[part]], dtype=np.int64) for part in SPLITS}
    splits = {part: Split(classes[part], 4 if part in turned else 1) for part in SPLITS}
    return DataSet(name, store, splits, {"split": split, "split_hash": split_hash(lists), "rotations": rotations})
