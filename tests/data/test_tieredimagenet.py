"""tieredImageNet from the published pickles and from class folders, written here with few classes."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_pickles import python2
from torchvision.io import encode_png

from fsl_cli.data import copies
from fsl_cli.data.copies import shipped_split
from fsl_cli.data.sources import tieredimagenet as module
from fsl_cli.data.sources.tieredimagenet import tieredimagenet
from fsl_cli.data.store import DataSet
from fsl_cli.errors import UserError

CLASSES = {"train": 3, "val": 1, "test": 2}
IMAGES = {"train": 7, "val": 2, "test": 4}
LABELS = {"train": [2, 0, 0, 1, 1, 2, 2], "val": [0, 0], "test": [0, 1, 0, 1]}
WORDS = {"train": ["crane", "tabby, tabby cat", "crane"], "val": ["apiary"], "test": ["violin", "cello"]}
PIXELS = {
    part: np.random.default_rng(i).integers(0, 255, (n, 8, 8, 3), np.uint8)
    for i, (part, n) in enumerate(IMAGES.items())
}


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLASSES", CLASSES)
    monkeypatch.setattr(module, "IMAGES", IMAGES)
    names = {part: [f"n{label:08d}" for label in sorted(set(LABELS[part]))] for part in CLASSES}
    monkeypatch.setattr(module, "shipped_split", lambda name: names)
    monkeypatch.setattr(module, "_words", lambda: {part: [w.split(",")[0] for w in own] for part, own in WORDS.items()})


def png(image: np.ndarray) -> np.ndarray:
    return encode_png(torch.from_numpy(image.transpose(2, 0, 1).copy())).numpy()


def dump2(value: Any) -> bytes:
    return b"\x80\x02" + python2(value) + b"."


def pickles(root: Path, dump: Callable[[Any], bytes] = dump2, shape: tuple[int, ...] = (-1, 1)) -> Path:
    """PNGs as cv2.imencode returns them: in arrays (n, 1), since OpenCV 4.5 (n,)."""
    root.mkdir(exist_ok=True)
    for part in CLASSES:
        general = {"label_general": np.array(LABELS[part]), "label_general_str": ["animal"]}
        labels = {"label_specific": np.array(LABELS[part], np.int32), "label_specific_str": WORDS[part], **general}
        (root / f"{part}_images_png.pkl").write_bytes(dump([png(image).reshape(shape) for image in PIXELS[part]]))
        (root / f"{part}_labels.pkl").write_bytes(dump(labels))
    return root


def folders(root: Path) -> Path:
    for part in CLASSES:
        for i, (label, image) in enumerate(zip(LABELS[part], PIXELS[part], strict=True)):
            path = root / part / f"n{label:08d}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(png(image)))
    return root


def opened(root: Path | None, cache: Path, **choices: Any) -> DataSet:
    return tieredimagenet(str(root) if root else None, **{"size": 8, **choices}, cache=str(cache))


@pytest.mark.parametrize(("dump", "shape"), [(dump2, (-1, 1)), (pickle.dumps, (-1,))])
def test_the_published_pickles(tmp_path: Path, dump: Callable[[Any], bytes], shape: tuple[int, ...]) -> None:
    data = opened(pickles(tmp_path / "it", dump, shape), tmp_path / "cache")
    assert data.store.names == [
        "test/000 violin",
        "test/001 cello",
        "train/000 crane",
        "train/001 tabby, tabby cat",
        "train/002 crane",
        "val/000 apiary",
    ]
    assert {part: split.classes.tolist() for part, split in data.splits.items()} == {
        "train": [2, 3, 4],
        "val": [5],
        "test": [0, 1],
    }
    assert np.diff(data.store.starts).tolist() == [2, 2, 2, 2, 3, 2]
    assert np.array_equal(data.store.images[8:11], PIXELS["train"][[0, 5, 6]].transpose(0, 3, 1, 2))
    assert data.protocol.keys() == {"split", "split_hash", "rotations"} and data.protocol["split"] == "ren"
    assert data.part_of == "ImageNet"


def test_class_folders(tmp_path: Path) -> None:
    data = opened(folders(tmp_path / "it"), tmp_path / "cache", rotations="train")
    assert data.store.names[:3] == ["test/n00000000", "test/n00000001", "train/n00000000"]
    assert data.store.hash == opened(pickles(tmp_path / "other"), tmp_path / "cache").store.hash
    assert {part: split.turns for part, split in data.splits.items()} == {"train": 4, "val": 1, "test": 1}
    assert opened(None, tmp_path / "cache").store.hash == data.store.hash


def test_class_folders_of_other_classes_in_the_right_number_are_refused(tmp_path: Path) -> None:
    root = folders(tmp_path / "it")
    (root / "val" / "n00000000").rename(root / "val" / "n00000009")
    with pytest.raises(UserError, match="val split in .* is not that of .*such as n00000009, and n00000000 is missing"):
        opened(root, tmp_path / "cache")


@pytest.mark.parametrize(
    ("part", "words", "refused"),
    [
        ("test", ["violin", "banjo"], "1 of its 2 classes are no class of it, such as banjo"),
        ("val", ["Tabby, tabby_cat"], "1 of its 1 classes are no class of it, such as Tabby"),  # which is one of train
        ("test", ["Violin", "cello, violoncello"], None),
        ("test", ["category 1", "category 2"], None),  # another way to write them: counted
    ],
)
def test_pickles_of_other_classes_in_the_right_number_are_refused(
    part: str, words: list[str], refused: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pickles(tmp_path / "it")
    labels = {"label_specific": np.array(LABELS[part], np.int32), "label_specific_str": words}
    (root / f"{part}_labels.pkl").write_bytes(dump2(labels))
    if refused is None:
        opened(root, tmp_path / "cache")
        return
    with pytest.raises(UserError, match=f"The {part} split in .* is not that of Ren et al.: {refused}"):
        opened(root, tmp_path / "cache")


def test_the_list_that_ships_is_that_of_the_paper() -> None:
    lists = shipped_split("tieredimagenet")
    assert {part: len(set(names)) for part, names in lists.items()} == {"train": 351, "val": 97, "test": 160}
    assert len({name for names in lists.values() for name in names}) == 608
    assert all(re.fullmatch(r"n\d{8}", name) for names in lists.values() for name in names)
    words = json.loads((Path(copies.__file__).parent / "splits" / "tieredimagenet" / "words.json").read_text())
    assert {part: len(set(own)) for part, own in words.items()} == {"train": 351, "val": 97, "test": 160}
    assert words["val"][lists["val"].index("n02099601")] == "golden retriever"
    assert "n01530575" in lists["train"] and "n02099267" in lists["val"] and "n03314780" in lists["test"]


def test_a_png_that_cannot_be_read(tmp_path: Path) -> None:
    root = pickles(tmp_path / "it")
    broken = [png(image)[: 100 if i == 3 else None].reshape(-1, 1) for i, image in enumerate(PIXELS["train"])]
    (root / "train_images_png.pkl").write_bytes(dump2(broken))
    with pytest.raises(UserError, match=r"1 of 7 images cannot be read(.|\n)*image 3 of .*train_images_png\.pkl: "):
        opened(root, tmp_path / "cache")
    data = opened(root, tmp_path / "cache", on_error="skip")
    assert np.diff(data.store.starts).tolist() == [2, 2, 2, 1, 3, 2]
    (about,) = (tmp_path / "cache").glob("*/store.json")
    assert "image 3 of " in json.loads(about.read_text())["recipe"]["skipped"][0]


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def write(name: str, content: Any) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(dump2(content)) and None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("val_images_png.pkl"), "lacks val_images_png.pkl"),
        (remove("test_labels.pkl"), "lacks test_labels.pkl"),
        (write("test_labels.pkl", {"labels": [0]}), "are not as published.*KeyError: 'label_specific'"),
        (write("test_labels.pkl", [1, 2]), "are not as published"),
        (write("test_labels.pkl", {"label_specific": [0], "label_specific_str": ["a"]}), "not as published.*zip"),
        (write("train_labels.pkl", {"label_specific": [9] * 7, "label_specific_str": []}), "not as published.*range"),
        (
            write("train_labels.pkl", {"label_specific": [0] * 7, "label_specific_str": ["a"]}),
            "train split in .* has 1 classes and 7 images instead of 3 and 7",
        ),
    ],
)
def test_pickles_that_are_not_as_published(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    root = pickles(tmp_path / "it")
    change(root)
    with pytest.raises(UserError, match=message):
        opened(root, tmp_path / "cache")


def test_what_is_no_tieredimagenet(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    with pytest.raises(UserError, match="test split in .* has 0 classes and 0 images instead of 2 and 4"):
        opened(tmp_path / "it", tmp_path / "cache")
    with pytest.raises(UserError, match="ImageNet's terms") as caught:
        opened(None, tmp_path / "cache")
    for text in ("https://", str(tmp_path / "cache/downloads/tieredimagenet"), "351 / 97 / 160"):
        assert text in str(caught.value)
