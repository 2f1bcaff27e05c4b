"""Every data set in one shape: a memory-mapped array of uint8 images, sorted by class.

A store is drawn or decoded once, kept in the user's cache folder and opened in microseconds afterwards.
It is written under a temporary name and renamed when whole, so a killed process leaves nothing behind
that could be mistaken for a data set.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fsl_cli.errors import UserError

VERSION = 1  # raise it when the layout below changes: older caches are then rebuilt

SPLITS = ("train", "val", "test")
Images = np.ndarray[Any, np.dtype[np.uint8]]


class ImageStore(NamedTuple):
    """All images of a data set."""

    images: Images  # (N, C, H, W), memory-mapped
    starts: np.ndarray[Any, np.dtype[np.int64]]  # (classes + 1,) images of class c: starts[c] to starts[c + 1]
    names: list[str]  # (classes,)
    hash: str  # of the images, the first 16 hexadecimal digits of their blake2b


class Split(NamedTuple):
    """The classes that one split may show.

    With `turns` = 4 each class appears four times, turned by 0, 90, 180 and 270 degrees: entry v is
    class `classes[v // turns]` turned by `v % turns` quarters, so a turned class never leaves its
    parent's split.
    """

    classes: np.ndarray[Any, np.dtype[np.int64]]  # class numbers of the store
    turns: int = 1  # 1 or 4


class DataSet(NamedTuple):
    """A store, and which of its classes are for training, validation and test."""

    name: str
    store: ImageStore
    splits: dict[str, Split]  # "train", "val", "test"
    protocol: dict[str, str]  # what must stand beside every number: split, its hash, rotations, ...
    mean: tuple[float, ...] = (0.0,)  # per channel, of pixels in 0..1; x is (pixel - mean) / std
    std: tuple[float, ...] = (1.0,)


def cache_folder(cache: str | None) -> Path:
    """`cache` if given, else fsl's folder in the user's cache (XDG_CACHE_HOME, by default ~/.cache)."""
    if cache:
        return Path(cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fsl"


def split_hash(splits: dict[str, list[str]]) -> str:
    """Ten digits that tell two divisions of the classes apart."""
    return hashlib.blake2b(json.dumps(splits, sort_keys=True).encode(), digest_size=5).hexdigest()


def fingerprints(data: DataSet, part: str) -> dict[str, str]:
    """Each class of a split by name, with a hash of its first image: tells whether a class was seen before."""
    store = data.store
    return {
        store.names[c]: hashlib.blake2b(store.images[store.starts[c]].tobytes(), digest_size=6).hexdigest()
        for c in data.splits[part].classes.tolist()
    }


def open_store(
    cache: Path, name: str, recipe: dict[str, Any], classes: Callable[[], Iterable[tuple[str, Images]]]
) -> ImageStore:
    """The store that `recipe` describes, from the cache, or built there now.

    `recipe` holds everything the images depend on; it is part of the folder's name. `classes` yields, one
    class after another, its name and its images (n, C, H, W), all of one shape; it is called only when
    the cache does not hold them. A cache that is damaged or of another version is rebuilt, with a line
    that says so. Raises UserError when the folder cannot be written.
    """
    recipe = {"name": name, "version": VERSION, **recipe}
    digest = hashlib.blake2b(json.dumps(recipe, sort_keys=True).encode(), digest_size=6).hexdigest()
    folder = cache / f"{name}-{digest}"
    if os.path.exists(folder):  # False where we may not look
        try:
            return _read(folder)
        except (OSError, ValueError, KeyError, TypeError) as reason:
            print(f"The cache {folder} cannot be used ({reason}); building it again.")
            shutil.rmtree(folder, ignore_errors=True)
    temporary = None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
        _write(temporary, recipe, classes())
        temporary.chmod(0o755)  # mkdtemp's folders are for their maker alone
        try:
            temporary.rename(folder)
        except OSError:  # another process built it meanwhile: the same images, so its copy is as good
            if not folder.exists():
                raise
        return _read(folder)
    except OSError as error:
        raise UserError(
            f"The cache folder {cache} cannot be written: {error.strerror}. Choose another with data.cache=FOLDER."
        ) from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, recipe: dict[str, Any], classes: Iterable[tuple[str, Images]]) -> None:
    names: list[str] = []
    starts = [0]
    shape: tuple[int, ...] = ()
    content = hashlib.blake2b(digest_size=8)
    with open(folder / "images.bin", "wb") as file:
        for name, images in classes:
            data = np.ascontiguousarray(images, dtype=np.uint8)
            shape = shape or data.shape[1:]
            if data.shape[1:] != shape:
                raise ValueError(f"class {name} has images of shape {data.shape[1:]}, the others {shape}")
            file.write(data.data)
            content.update(data.data)
            names.append(name)
            starts.append(starts[-1] + len(data))
    about = {"recipe": recipe, "shape": [starts[-1], *shape], "starts": starts, "names": names}
    (folder / "store.json").write_text(json.dumps({**about, "hash": content.hexdigest()}))


def _read(folder: Path) -> ImageStore:
    about = json.loads((folder / "store.json").read_text())
    if about["recipe"]["version"] != VERSION:
        raise ValueError(f"it has version {about['recipe']['version']}, this fsl writes version {VERSION}")
    shape = tuple(about["shape"])
    size = (folder / "images.bin").stat().st_size
    if size != int(np.prod(shape)):
        raise ValueError(f"images.bin has {size} bytes instead of {int(np.prod(shape))}")
    images = np.memmap(folder / "images.bin", dtype=np.uint8, mode="r", shape=shape)
    return ImageStore(images, np.array(about["starts"], dtype=np.int64), about["names"], about["hash"])
