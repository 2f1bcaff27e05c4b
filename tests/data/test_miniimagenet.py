"""miniImageNet from every form in which it is passed around, written here as published, and the real one."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
import time
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REAL
from test_pickles import python2
from torchvision.io import encode_jpeg

from fsl_cli.data.copies import shipped_split
from fsl_cli.data.sources import miniimagenet as module
from fsl_cli.data.sources.miniimagenet import miniimagenet
from fsl_cli.data.store import DataSet, split_hash
from fsl_cli.errors import UserError

LISTS = {"train": ["n03", "n01"], "val": ["n04"], "test": ["n02"]}
EACH = 3  # images of a class
PIXELS = {
    name: np.random.default_rng(i).integers(0, 255, (EACH, 8, 8, 3), np.uint8)
    for i, name in enumerate(("n01", "n02", "n03", "n04"))
}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "shipped_split", lambda name: LISTS)
    monkeypatch.setattr(module, "IMAGES", EACH)


def jpegs() -> dict[str, bytes]:
    return {
        f"{name}{i:03d}.jpg": bytes(encode_jpeg(torch.from_numpy(image.transpose(2, 0, 1).copy())).numpy())
        for name, images in PIXELS.items()
        for i, image in enumerate(images)
    }


def tables(path: str = "images") -> dict[str, bytes]:
    """images/*.jpg with train.csv, val.csv, test.csv"""
    rows = {part: [f"{n}{i:03d}.jpg,{n}" for n in names for i in range(EACH)] for part, names in LISTS.items()}
    made = {f"{path}/{name}": content for name, content in jpegs().items()}
    return made | {f"{part}.csv": "\r\n".join(["filename,label", *lines]).encode() for part, lines in rows.items()}


def class_folders() -> dict[str, bytes]:
    return {f"{name[:3]}/{name}": content for name, content in jpegs().items()}


def part_folders() -> dict[str, bytes]:
    part = {name: part for part, names in LISTS.items() for name in names}
    return {f"mini/{part[name[:3]]}/{name[:3]}/{name}": content for name, content in jpegs().items()}


def put(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "mini.zip", "w") as archive:
        for name, content in {**files, "__MACOSX/images/._n01000.jpg": b"", "images/": b""}.items():
            archive.writestr(name, content)
    return root / "mini.zip"


def opened(root: Path | None, cache: Path, **choices: Any) -> DataSet:
    return miniimagenet(str(root) if root else None, **{"size": 8, **choices}, cache=str(cache))


def names(data: DataSet) -> dict[str, list[str]]:
    return {part: [data.store.names[c] for c in split.classes] for part, split in data.splits.items()}


def test_the_lists_are_frozen() -> None:
    lists = shipped_split("miniimagenet")
    assert {part: len(names) for part, names in lists.items()} == {"train": 64, "val": 16, "test": 20}
    assert len(set().union(*lists.values())) == 100
    assert split_hash(lists) == "7e63e0192a"


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("make", [zipped, put])
@pytest.mark.parametrize("form", [tables, class_folders, part_folders])
def test_images_with_tables_or_in_folders_zipped_or_not(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path], form: Callable[[], dict[str, bytes]]
) -> None:
    data = opened(make(tmp_path / "it", form()), tmp_path / "cache")
    assert data.store.names == ["n01", "n02", "n03", "n04"]
    assert data.store.images.shape == (12, 3, 8, 8)
    assert np.abs(data.store.images[3].astype(int) - PIXELS["n02"][0].transpose(2, 0, 1)).mean() < 60  # lossy
    assert names(data) == LISTS and {split.turns for split in data.splits.values()} == {1}
    assert data.protocol == {"split": "ravi", "split_hash": split_hash(LISTS), "rotations": "none"}
    assert len(data.mean) == len(data.std) == 3
    assert data.part_of == "ImageNet"
    same = opened(zipped(tmp_path / "other", tables("some/where")), tmp_path / "cache")
    assert same.store.hash == data.store.hash


def test_rotations_and_sizes(few: None, tmp_path: Path) -> None:
    root = put(tmp_path / "it", tables())
    turns = {
        rotations: [split.turns for split in opened(root, tmp_path / "cache", rotations=rotations).splits.values()]
        for rotations in ("none", "train", "all")
    }
    assert turns == {"none": [1, 1, 1], "train": [4, 1, 1], "all": [4, 4, 4]}
    assert opened(root, tmp_path / "cache", size=5).store.images.shape == (12, 3, 5, 5)


def cache_pickle(part: str) -> Any:
    names = LISTS[part]
    rows = {name: list(range(i * EACH, (i + 1) * EACH)) for i, name in enumerate(names)}
    return {"image_data": np.concatenate([PIXELS[name] for name in names]), "class_dict": rows}


def labels_pickle(part: str, **more: Any) -> Any:
    """Classes are numbered through all three parts, as those of MetaOptNet and others are."""
    number = {name: i for i, name in enumerate(sum(LISTS.values(), []))}
    labels = [number[name] for name in LISTS[part] for _ in range(EACH)]
    return {"data": cache_pickle(part)["image_data"], "labels": labels, **more}


def named_pickle(part: str) -> Any:
    return labels_pickle(part, catname2label={name: i for i, name in enumerate(sum(LISTS.values(), []))})


def dump2(value: Any) -> bytes:
    return b"\x80\x02" + python2(value) + b"."


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("dump", [pickle.dumps, dump2])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("mini-imagenet-cache-{}.pkl", cache_pickle),
        ("miniImageNet_category_split_{}.pickle", named_pickle),
        ("{}.pkl", cache_pickle),
    ],
)
def test_pickles(tmp_path: Path, dump: Callable[[Any], bytes], file: str, content: Callable[[str], Any]) -> None:
    for part in LISTS:
        whole = "train_phase_train" if part == "train" and "category" in file else part
        put(tmp_path / "it", {file.format(whole): dump(content(part))})
    data = opened(tmp_path / "it", tmp_path / "cache")
    assert names(data) == LISTS
    for i, name in enumerate(("n01", "n02", "n03", "n04")):
        assert np.array_equal(data.store.images[3 * i : 3 * i + 3], PIXELS[name].transpose(0, 3, 1, 2))
    assert data.protocol["split_hash"] == split_hash(LISTS)


FILES = (
    "mini-imagenet-cache-{}.pkl",
    "miniImageNet_category_split_{}.pickle",
    "mini_imagenet_{}.pickle",
    "deep/in/{}_data.p",
)
SPELT = {"train": "train", "val": "validation", "test": "TEST"}


def images_of(part: str) -> np.ndarray:
    return cache_pickle(part)["image_data"]  # type: ignore[no-any-return]


def words(part: str) -> list[str]:
    return [name for name in LISTS[part] for _ in range(EACH)]


def rows_of(part: str) -> dict[str, list[int]]:
    return cache_pickle(part)["class_dict"]  # type: ignore[no-any-return]


KINDS: dict[str, Callable[[str], Any]] = {
    "class_dict of ranges": lambda part: {
        "image_data": images_of(part),
        "class_dict": {name: range(rows[0], rows[-1] + 1) for name, rows in rows_of(part).items()},
    },
    "ordered": lambda part: OrderedDict(cache_pickle(part)),
    "default": lambda part: {**cache_pickle(part), "class_dict": defaultdict(list, rows_of(part))},
    "channels first": lambda part: {**cache_pickle(part), "image_data": images_of(part).transpose(0, 3, 1, 2)},
    "labels by name": lambda part: {"X": images_of(part), "y": words(part)},
    "numbered, named": lambda part: {**labels_pickle(part), "label2catname": dict(enumerate(sum(LISTS.values(), [])))},
    "numpy's numbers": lambda part: {**named_pickle(part), "labels": list(np.array(labels_pickle(part)["labels"]))},
    "by class": lambda part: {name: PIXELS[name] for name in LISTS[part]},
    "by class, in lists": lambda part: {name: list(PIXELS[name]) for name in LISTS[part]},
    "a pair": lambda part: (images_of(part), words(part)),
}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", KINDS)
def test_pickles_of_other_kinds_and_names_in_folders_and_archives(tmp_path: Path, kind: str) -> None:
    for number, file in enumerate(FILES):
        files = {file.format(SPELT[part]): pickle.dumps(KINDS[kind](part), 2) for part in LISTS}
        files |= {"miniImageNet_category_split_train_phase_val.pickle": b"of other images", "README.md": b"#"}
        make = (put, zipped, tarred)[number % 3]
        data = opened(make(tmp_path / str(number), files), tmp_path / "cache" / str(number))
        assert names(data) == LISTS
        for i, name in enumerate(("n01", "n02", "n03", "n04")):
            assert np.array_equal(data.store.images[3 * i : 3 * i + 3], PIXELS[name].transpose(0, 3, 1, 2))


def tarred(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "mini.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return root / "mini.tar.gz"


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("make", [put, zipped, tarred])
def test_lists_of_base_val_and_novel(tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path]) -> None:
    files = {f"images/{name}": content for name, content in jpegs().items()}
    for part, called in {"train": "base", "val": "val", "test": "novel"}.items():
        own = LISTS[part]
        listing = {
            "label_names": own,
            "image_names": [f"/home/somebody/images/{name}{i:03d}.jpg" for name in own for i in range(EACH)],
            "image_labels": [number for number, _ in enumerate(own) for _ in range(EACH)],
        }
        files[f"filelists/{called}.json"] = json.dumps(listing).encode()
    assert names(opened(make(tmp_path / "it", files), tmp_path / "cache")) == LISTS


@pytest.mark.usefixtures("few")
def test_a_refused_copy_says_what_is_there_and_what_it_is_most_like(tmp_path: Path) -> None:
    for number, (files, message) in enumerate(
        (
            ({"train_data.hdf5": b"", "train_labels.json": b"{}"}, r"1 \.hdf5, 1 \.json .*\.hdf5 are not read"),
            ({"images/1.jpg": b"", "images/2.jpg": b""}, r"2 \.jpg .*most like images beside the tables"),
            (without(class_folders(), "n02/"), r"most like a folder for each class, of which it has 3 of 4"),
            ({"mini-train.pkl": b"", "mini-val.pkl": b""}, r"no pickle of test, .*mini-train\.pkl, mini-val\.pkl"),
            ({f"{p}.pkl": pickle.dumps({"a": 1, "b": PIXELS["n01"][0]}) for p in LISTS}, r"It holds a: int, b: uint8"),
        )
    ):
        with pytest.raises(UserError, match=message):
            opened(put(tmp_path / str(number), files), tmp_path / "cache")


def test_pickles_without_names_have_a_hash_of_their_own(few: None, tmp_path: Path) -> None:
    put(tmp_path, {f"{part}.pkl": pickle.dumps(labels_pickle(part)) for part in LISTS})
    data = opened(tmp_path, tmp_path / "cache")
    assert names(data) == {"train": ["train/00", "train/01"], "val": ["val/02"], "test": ["test/03"]}
    assert data.protocol["split"] == "ravi" and data.protocol["split_hash"] != split_hash(LISTS)


def test_an_image_that_cannot_be_read(few: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = tables()
    files["images/n02001.jpg"] = files["images/n02001.jpg"][:-9]
    files["images/n03000.jpg"] = b"hello"
    del files["images/n04002.jpg"]
    for make in (zipped, put):
        root = make(tmp_path / make.__name__, files)
        with pytest.raises(UserError, match=r"3 of 12 images cannot be read\. .*data\.on_error=skip") as caught:
            opened(root, tmp_path / "cache")
        for text in ("n02001.jpg: Image is incomplete", "n03000.jpg: it is no image", "n04002.jpg: it is missing"):
            assert text in str(caught.value)
        assert not list((tmp_path / "cache").glob("[!.]*"))
        data = opened(root, tmp_path / make.__name__ / "cache", on_error="skip")
        assert np.diff(data.store.starts).tolist() == [3, 2, 2, 2]
        assert "Left out 3 of 12 images" in capsys.readouterr().out
        (about,) = (tmp_path / make.__name__ / "cache").glob("*/store.json")
        assert [name.split("/")[-1][:10] for name in json.loads(about.read_text())["recipe"]["skipped"]] == [
            "n02001.jpg",
            "n03000.jpg",
            "n04002.jpg",
        ]
        again = opened(None, tmp_path / make.__name__ / "cache", on_error="skip")
        assert again.store.hash == data.store.hash and not capsys.readouterr().out


def test_a_class_of_which_no_image_can_be_read(few: None, tmp_path: Path) -> None:
    files = {name: b"" if "n04" in name else content for name, content in class_folders().items()}
    for choice, message in (("stop", "3 of 12 images cannot"), ("skip", "No image of n04 can be read: ")):
        with pytest.raises(UserError, match=message):
            opened(put(tmp_path / "it", files), tmp_path / "cache", on_error=choice)


def test_prepared_once_the_copy_may_go(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    made = opened(zipped(tmp_path / "it", tables()), cache).store.hash
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode", lambda *_: pytest.fail("decoded again"))
        assert opened(tmp_path / "it", cache).store.hash == made  # the folder that holds the zip
        shutil.rmtree(tmp_path / "it")
        assert opened(None, cache).store.hash == made
    with pytest.raises(UserError, match="ImageNet's terms"):
        opened(None, cache, size=9)
    with pytest.raises(UserError, match="it does not exist"):
        opened(tmp_path / "it", cache)
    other = put(cache / "downloads" / "miniimagenet", class_folders())
    assert opened(None, cache, size=9).store.images.shape == (12, 3, 9, 9)
    assert opened(None, cache).store.hash == made
    put(other, {"n01/n01000.jpg": jpegs()["n04000.jpg"]})  # another copy
    assert opened(None, cache).store.hash != made


def test_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        opened(None, tmp_path)
    for text in ("ImageNet's terms", "https://", str(tmp_path / "downloads/miniimagenet"), "data.root=PATH", "600"):
        assert text in str(caught.value)


def without(files: dict[str, bytes], start: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if not name.startswith(start)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (lambda: {}, "100 classes: n01, n02, n03 and others"),
        (lambda: without(class_folders(), "n02/"), "classes: n02 and others are missing"),
        (lambda: without(class_folders(), "n02/n02001"), "must have 3 images; n02 has 2"),
        (lambda: class_folders() | {"n02/more.jpg": b""}, "must have 3 images; n02 has 4"),
        (lambda: without(tables(), "val.csv"), "one table of the val split, such as val.csv, beside the images, not 0"),
        (lambda: tables() | {"val.csv": b"filename,label\nn01000.jpg,n01"}, "val.csv does not list the classes of"),
        (lambda: tables() | {"val.csv": b""}, "val.csv does not list the classes of"),
        (lambda: {"val.pkl": pickle.dumps(cache_pickle("val"))}, "no pickle of train and test, .*: all three"),
        (lambda: {f"{part}.pkl": pickle.dumps([]) for part in LISTS}, "train.pkl holds no uint8 images"),
        (lambda: {f"{p}.pkl": pickle.dumps({"data": PIXELS["n01"]}) for p in LISTS}, "neither class_dict nor labels"),
        (lambda: {"mini.zip": b"PK"}, "mini.zip cannot be read as a zip"),
    ],
)
def test_copies_that_are_not_whole(
    few: None, tmp_path: Path, files: Callable[[], dict[str, bytes]], message: str
) -> None:
    (tmp_path / "it").mkdir()
    with pytest.raises(UserError, match=message):
        opened(put(tmp_path / "it", files()), tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.real
def test_the_real_one_is_prepared_fast_and_opened_at_once(tmp_path: Path) -> None:
    root = REAL / "miniimagenet"
    if not root.exists():
        pytest.skip(f"needs real miniImageNet in {root}")
    start = time.process_time()
    data = miniimagenet(str(root), cache=str(tmp_path))
    assert time.process_time() - start < 120  # CPU seconds: 60 on two cores
    assert data.store.images.shape == (60000, 3, 84, 84) and set(np.diff(data.store.starts)) == {600}
    assert data.protocol == {"split": "ravi", "split_hash": "7e63e0192a", "rotations": "none"}
    assert [len(split.classes) for split in data.splits.values()] == [64, 16, 20]
    ours = np.concatenate([data.store.images[data.store.starts[c] :][:600:20] for c in data.splits["train"].classes])
    assert np.allclose(ours.mean((0, 2, 3)) / 255, data.mean, atol=0.01)
    assert np.allclose(ours.std((0, 2, 3)) / 255, data.std, atol=0.01)
    start = time.process_time()
    again = miniimagenet(str(root), cache=str(tmp_path))
    assert time.process_time() - start < 0.2 and again.store.hash == data.store.hash
