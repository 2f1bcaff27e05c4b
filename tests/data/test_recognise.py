"""`data.root` is believed only where the store was made from what is there now, or from the same bytes elsewhere."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fsl_cli.data import recognise
from fsl_cli.data.copies import open_copy
from fsl_cli.data.sources.cifar import cifar_fs
from fsl_cli.data.sources.cub import cub
from fsl_cli.data.sources.miniimagenet import miniimagenet
from fsl_cli.data.sources.omniglot import omniglot
from fsl_cli.data.sources.tieredimagenet import tieredimagenet
from fsl_cli.data.store import Images, ImageStore, open_store
from fsl_cli.errors import UserError

RECIPE = {"size": 2}


class Reader:
    """Opens a copy in which each file is a class, and counts how often one was read."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.drawn = cache, 0

    def draw(self, place: Path) -> Iterable[tuple[str, Images]]:
        self.drawn += 1
        if place.suffix == ".zip":
            with zipfile.ZipFile(place) as archive:
                found = {name: archive.read(name) for name in archive.namelist()}
        else:
            found = {path.name: path.read_bytes() for path in place.iterdir()}
        for name, content in sorted(found.items()):
            yield name, np.full((1, 1, 2, 2), content[0], np.uint8)

    def __call__(self, root: Path | None, fetch: Callable[[], Path] | None = None) -> ImageStore:
        return open_copy(self.cache, "it", str(root) if root else None, dict(RECIPE), self.draw, "Get it.", fetch)


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(tmp_path / "cache")


def folder(root: Path, **content: bytes) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, each in content.items():
        (root / name).write_bytes(each)
    return root


def zipped(root: Path, **content: bytes) -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for name, each in content.items():
            archive.writestr(name, each)
    return root.with_suffix(".zip")


@pytest.mark.parametrize("make", [folder, zipped])
def test_another_copy_is_read_and_the_same_elsewhere_is_recognised(
    tmp_path: Path, read: Reader, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(tmp_path / "one" if make is folder else tmp_path / "one", a=b"1", b=b"2")
    store = read(first)
    assert read(first).hash == store.hash and read.drawn == 1
    (tmp_path / "away").mkdir()
    moved = Path(
        shutil.copytree(first, tmp_path / "away" / "it") if first.is_dir() else shutil.copy(first, tmp_path / "away")
    )
    for path in [moved, *moved.rglob("*")]:
        os.utime(path, (1, 1))
    assert read(moved).hash == store.hash and read.drawn == 1, "the same bytes, at another time and place"
    with monkeypatch.context() as patch:
        patch.setattr(recognise.Copy, "content", lambda self: pytest.fail("read again, though it is remembered"))
        assert read(moved).hash == store.hash and read.drawn == 1
    other = make(tmp_path / "other", a=b"1", b=b"3")  # of the same names and sizes
    assert read(other).hash != store.hash and read.drawn == 2
    assert read(first).hash == read(moved).hash == store.hash and read.drawn == 2
    unrelated = make(tmp_path / "unrelated", x=b"77")
    assert read(unrelated).names == ["x"] and read.drawn == 3


def test_without_a_root_the_last_copy_stands_and_stores_of_version_0_1_0(tmp_path: Path, read: Reader) -> None:
    root = folder(tmp_path / "one", a=b"1")
    fetch = partial(folder, tmp_path / "fetched", f=b"9")
    assert read(None, fetch).names == ["f"] and read.drawn == 1
    assert read(root, fetch).names == ["a"], "the cache was not made from this"
    assert read(None, fetch).names == ["f"] and read.drawn == 2
    shutil.rmtree(read.cache)
    read(root, fetch)
    shutil.rmtree(root)
    assert read(None, fetch).names == ["a"] and read.drawn == 3
    with pytest.raises(UserError, match="does not exist"):
        read(root, fetch)


def test_a_store_of_version_0_1_0_from_a_root_is_used_again(tmp_path: Path, read: Reader) -> None:
    """Those of data sets that anybody may download had no word of their copy; others had names, sizes and times."""
    root = folder(tmp_path / "one", a=b"1")
    [stat] = [(root / "a").stat()]
    digest = recognise._digest([("a", stat.st_size, stat.st_mtime_ns)])
    old = open_store(read.cache, "it", {**RECIPE, "copy": digest}, lambda: read.draw(root))
    assert read(root).hash == old.hash and read.drawn == 1
    plain = open_store(read.cache, "it", dict(RECIPE), lambda: [("old", np.zeros((1, 1, 2, 2), np.uint8))])
    assert read(None, lambda: root).hash == plain.hash and read.drawn == 1
    assert read(root, lambda: root).hash == old.hash and read.drawn == 1


@pytest.mark.parametrize(
    ("source", "name", "recipe"),
    [
        (omniglot, "omniglot", {"size": 28, "resize": "bilinear antialias"}),
        (cub, "cub", {"size": 84, "resize": "bilinear antialias", "crop": False}),
        (cifar_fs, "cifar100", {"size": 32, "resize": "bilinear antialias"}),
        (miniimagenet, "miniimagenet", None),
        (tieredimagenet, "tieredimagenet", None),
    ],
)
def test_no_data_set_takes_an_unrelated_folder_for_its_copy(
    tmp_path: Path, source: Callable[..., object], name: str, recipe: dict[str, object] | None
) -> None:
    cache, other = tmp_path / "cache", folder(tmp_path / "other", notes=b"no pictures")
    if recipe:  # what was prepared before, from anywhere
        open_store(cache, name, recipe, lambda: [("class", np.zeros((1, 1, 2, 2), np.uint8))])
    with pytest.raises(UserError, match=r"other|What is there: 1 without an ending \(notes\)"):
        source(root=str(other), cache=str(cache))
    (other / "cifar-100-python.tar.gz").write_bytes(b"x")
    (other / "CUB_200_2011.tgz").write_bytes(b"x")
    with pytest.raises(UserError):
        source(root=str(other), cache=str(cache))
