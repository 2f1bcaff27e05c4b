"""Every data set in one shape: a memory-mapped array of uint8 images, sorted by class; so are texts and embeddings.

A store is drawn or decoded once, kept in the user's cache folder and opened in microseconds afterwards.
It is written under a temporary name and renamed when whole, so a killed process leaves nothing behind
that could be mistaken for a data set; a lock lets one process at a time build, and the others wait and open.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from fsl_cli.errors import UserError

VERSION = 1  # raise it when the layout below changes: older caches are then rebuilt
DAMAGED = "damaged"  # a file of this name in a store's folder: its bytes are not those that were written
UNUSABLE = (OSError, ValueError, KeyError, TypeError)  # what reading a store raises when it is not whole

MAPPED_LIMIT = 1 << 30  # bytes: larger stores would fill memory with what was looked at once

SPLITS = ("train", "val", "test")
Images = np.ndarray[Any, np.dtype[np.uint8]]


class ImageStore(NamedTuple):
    """All images of a data set."""

    images: Images  # (N, C, H, W), memory-mapped
    starts: np.ndarray[Any, np.dtype[np.int64]]  # (classes + 1,) images of class c: starts[c] to starts[c + 1]
    names: list[str]  # (classes,)
    hash: str  # of the images, the first 16 hexadecimal digits of their blake2b

    def take(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Images:
        """The images of these rows, (n, C, H, W). A large store is read, not mapped: what is mapped stays resident."""
        if self.images.nbytes <= MAPPED_LIMIT or not isinstance(self.images, np.memmap):
            return self.images[rows]
        taken = np.empty((len(rows), *self.images.shape[1:]), dtype=np.uint8)
        with open(str(self.images.filename), "rb", buffering=0) as file:
            for image, row in zip(taken, rows.tolist(), strict=True):
                file.seek(row * image.nbytes)
                file.readinto(image.data)
        return taken


class PseudoClasses(NamedTuple):
    """Classes that take the place of a split's labels, which nobody has to know."""

    items: np.ndarray[Any, np.dtype[np.int64]]  # images: row of the store * turns + quarter turns
    starts: np.ndarray[Any, np.dtype[np.int64]]  # (classes + 1,) class c has the items starts[c] to starts[c + 1]
    copies: int = 0  # in place of several images a class has one, so often, and queries are changed copies
    groups: list[np.ndarray[Any, np.dtype[np.int64]]] | None = None  # an episode's classes are of one of these

    @property
    def sizes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Images of each class."""
        sizes = np.diff(self.starts)
        return np.full_like(sizes, self.copies) if self.copies else sizes

    def at(
        self, classes: np.ndarray[Any, np.dtype[np.int64]], numbers: np.ndarray[Any, np.dtype[np.int64]]
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The items that are these images of these classes."""
        return self.items[self.starts[classes] + (0 if self.copies else numbers)]


class Split(NamedTuple):
    """The classes that one split may show.

    With `turns` = 4 each class appears four times, turned by 0, 90, 180 and 270 degrees: entry v is
    class `classes[v // turns]` turned by `v % turns` quarters, so a turned class never leaves its
    parent's split.
    """

    classes: np.ndarray[Any, np.dtype[np.int64]]  # class numbers of the store
    turns: int = 1  # 1 or 4
    groups: np.ndarray[Any, np.dtype[np.int64]] | None = None  # of each class, if an episode's come from one group
    pseudo: PseudoClasses | None = None  # the classes of episodes, where labels are hidden


class DataSet(NamedTuple):
    """A store, and which of its classes are for training, validation and test."""

    name: str
    store: ImageStore
    splits: dict[str, Split]  # "train", "val", "test"
    protocol: dict[str, str]  # what must stand beside every number: split, its hash, rotations, ...
    mean: tuple[float, ...] = (0.0,)  # per channel, of pixels in 0..1; x is (pixel - mean) / std
    std: tuple[float, ...] = (1.0,)
    ink: bool = False  # pixels are 1 for ink and 0 for paper, the negative of what is in the files
    reading: str = ""  # how the user's files were understood, in words
    left_out: list[str] = []  # kinds of files that were not taken, and why
    on_small: str | None = None  # classes too small for an episode: stop | skip; None where there is no such setting
    part_of: str = ""  # a larger collection of which its classes are some, such as ImageNet
    unsorted: bool = False  # pictures without labels, one class of the store for each split
    items: Literal["images", "texts", "embeddings"] = (
        "images"  # as `data.texts`, `data.embeddings` put them into a store
    )
    class_rows: np.ndarray[Any, np.dtype[np.float32]] | None = None  # (classes of the store, k): see `class_rows.py`

    @property
    def hash(self) -> str:
        """The hash of all images."""
        return self.store.hash

    @property
    def class_rows_hash(self) -> str:
        """A hash of the class rows, "" where there are none."""
        return "" if self.class_rows is None else hashlib.blake2b(self.class_rows.data, digest_size=8).hexdigest()

    def training_on_validation(self) -> DataSet:
        """The same data with the validation classes among those of training; validation itself stays as it is."""
        train, val = self.splits["train"], self.splits["val"]
        groups = None
        if train.groups is not None and val.groups is not None:
            groups = np.concatenate([train.groups, val.groups])
        both = Split(np.concatenate([train.classes, val.classes]), train.turns, groups)
        return self._replace(splits={**self.splits, "train": both})

    def fingerprints(self, part: str) -> dict[str, str]:
        """Each class of a split by name, with a hash of its first image: tells whether a class was seen before.

        Of texts, which may begin alike in two classes, of the one that fills most of its item.
        """
        store = self.store

        def telling(c: int) -> bytes:
            own = store.images[store.starts[c] : store.starts[c + 1]]
            if self.items != "texts":
                return own[0].tobytes()
            lengths = own.any(1).sum((1, 2)).tolist()
            return max(zip(lengths, (item.tobytes() for item in own), strict=True))[1]

        return {
            store.names[c]: hashlib.blake2b(telling(c), digest_size=6).hexdigest()
            for c in self.splits[part].classes.tolist()
        }


def cache_folder(cache: str | None) -> Path:
    """`cache` if given, else fsl's folder in the user's cache (XDG_CACHE_HOME, by default ~/.cache)."""
    if cache:
        return Path(cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fsl"


def split_hash(splits: dict[str, list[str]]) -> str:
    """Ten digits that tell two divisions of the classes apart."""
    return hashlib.blake2b(json.dumps(splits, sort_keys=True).encode(), digest_size=5).hexdigest()


def open_store(
    cache: Path,
    name: str,
    recipe: dict[str, Any],
    classes: Callable[[], Iterable[tuple[str, Images]]],
    source: Callable[[], dict[str, str]] = dict,
) -> ImageStore:
    """The store that `recipe` describes, from the cache, or built there now.

    `recipe` holds everything the images depend on; it is part of the folder's name. `classes` yields, one
    class after another, its name and its images (n, C, H, W), all of one shape, or some of them and then the
    rest; it is called only when the cache does not hold them, and `source` after it, for what the store is to tell
    of where they came from. A cache that is damaged or of another version is rebuilt, with a line that says so, and
    stays until its successor is whole. Raises UserError when the folder cannot be written.
    """
    recipe = {"name": name, "version": VERSION, **recipe}
    folder = store_folder(cache, recipe)
    with suppress(*UNUSABLE):
        return _read(folder)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _not_empty(cache), _alone(cache, name), temporary_folder(cache, name) as new:
            if os.path.exists(folder):  # False where we may not look
                try:
                    return _read(folder)  # another process built it meanwhile
                except UNUSABLE as reason:
                    print(f"The cache {folder} cannot be used ({reason}); building it again.")
            _write(new, recipe, classes(), source)
            new.chmod(0o755)  # temporary folders are for their maker alone
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
        return _read(folder)
    except OSError as error:
        raise UserError(
            f"The cache folder {cache} cannot be written: {error.strerror}. Choose another with data.cache=FOLDER."
        ) from error


def store_folder(cache: Path, recipe: dict[str, Any]) -> Path:
    """Where the store of a whole recipe is, with name and version, if it is there."""
    digest = hashlib.blake2b(json.dumps(recipe, sort_keys=True).encode(), digest_size=6).hexdigest()
    return cache / f"{recipe['name']}-{digest}"


@contextmanager
def _not_empty(cache: Path) -> Iterator[None]:
    """Remove a cache folder in which nothing was made."""
    try:
        yield
    finally:
        with suppress(OSError):
            cache.rmdir()


@contextmanager
def temporary_folder(cache: Path, name: str) -> Iterator[Path]:
    """An empty folder in the cache, removed at the end if it is still there.

    For one process at a time with this `name`: what a killed one left is removed first.
    """
    for left in cache.glob(f".{name}-????????"):  # as mkdtemp names them
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(cache: Path, name: str) -> Iterator[None]:
    """No other process builds a store of this data set meanwhile; the system frees the lock of one that is killed."""
    lock = FileLock(cache / f".{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another process is preparing {name} in {cache}; waiting for it.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # removed while it is held: whoever waits for it sees that, and makes a new one
            os.unlink(lock.lock_file)
        lock.release()


def _write(
    folder: Path,
    recipe: dict[str, Any],
    classes: Iterable[tuple[str, Images]],
    source: Callable[[], dict[str, str]],
) -> None:
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
            if names[-1:] != [name]:
                names.append(name)
                starts.append(starts[-1])
            starts[-1] += len(data)
    about = {"recipe": recipe, "shape": [starts[-1], *shape], "starts": starts, "names": names, "source": source()}
    (folder / "store.json").write_text(json.dumps({**about, "hash": content.hexdigest()}), encoding="utf-8")


def _read(folder: Path) -> ImageStore:
    about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    if (folder / DAMAGED).exists():
        raise ValueError("fsl data verify found that its images are not those that were written")
    if about["recipe"]["version"] != VERSION:
        raise ValueError(f"it has version {about['recipe']['version']}, this fsl writes version {VERSION}")
    shape = tuple(about["shape"])
    size = (folder / "images.bin").stat().st_size
    if size != int(np.prod(shape)):
        raise ValueError(f"images.bin has {size} bytes instead of {int(np.prod(shape))}")
    images = np.memmap(folder / "images.bin", dtype=np.uint8, mode="r", shape=shape)
    return ImageStore(images, np.array(about["starts"], dtype=np.int64), about["names"], about["hash"])
