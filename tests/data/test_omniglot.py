"""Real Omniglot, where it is there; its frozen lists everywhere."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsl_cli.cli import run
from fsl_cli.data.sampler import Shape
from fsl_cli.data.sources import omniglot as module
from fsl_cli.data.sources.omniglot import _splits, omniglot
from fsl_cli.data.store import DataSet, split_hash
from fsl_cli.data.tasks import sampler
from fsl_cli.errors import UserError


def test_the_vinyals_lists_are_frozen() -> None:
    lists = _splits("vinyals", [])
    assert {part: len(names) for part, names in lists.items()} == {"train": 1028, "val": 172, "test": 423}
    assert len(set().union(*lists.values())) == 1623
    assert all(name.startswith("images_evaluation/") for name in lists["test"])
    assert split_hash(lists) == "66d5ce15b8"


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DataSet]:
    cache = tmp_path_factory.mktemp("cache")
    return lambda **settings: omniglot(cache=str(cache), **settings)


@pytest.mark.real
def test_real_omniglot_is_whole_and_its_ink_is_1(omniglot_root: Path, load: Callable[..., DataSet]) -> None:
    data = load(root=str(omniglot_root))
    assert data.store.images.shape == (32460, 1, 28, 28)
    assert set(np.diff(data.store.starts)) == {20}
    assert 0.05 < (data.store.images > 127).mean() < 0.1
    sizes = {part: len(split.classes) * split.turns for part, split in data.splits.items()}
    assert sizes == {"train": 4112, "val": 688, "test": 1692}
    braille = data.store.names.index("images_background/Braille/character01")
    first = int(data.store.starts[braille])
    assert np.array_equal(data.store.images[first + 2], data.store.images[first + 18])  # known to be identical
    assert data.protocol == {"split": "vinyals", "split_hash": "66d5ce15b8", "rotations": "all"}


@pytest.mark.real
@pytest.mark.parametrize(("rotations", "sizes"), [("none", (1028, 172, 423)), ("train", (4112, 172, 423))])
def test_rotations_are_a_setting(
    omniglot_root: Path, load: Callable[..., DataSet], rotations: str, sizes: tuple[int, ...]
) -> None:
    splits = load(root=str(omniglot_root), rotations=rotations).splits
    assert tuple(len(splits[part].classes) * splits[part].turns for part in ("train", "val", "test")) == sizes


@pytest.mark.real
def test_lakes_split_is_background_and_evaluation(omniglot_root: Path, load: Callable[..., DataSet]) -> None:
    data = load(root=str(omniglot_root), split="lake", rotations="none")
    names = {part: [data.store.names[c] for c in split.classes] for part, split in data.splits.items()}
    assert len(names["test"]) == 659
    assert len(names["train"]) + len(names["val"]) == 964
    assert all(name.startswith("images_evaluation/") == (part == "test") for part in names for name in names[part])
    alphabets = {part: {name.split("/")[1] for name in names[part]} for part in names}
    assert not alphabets["train"] & alphabets["val"]


TREES = {  # where people's copies have images_background/Greek/character01/0001_01.png
    "as published": "{part}/{rest}",
    "torchvision's": "omniglot-py/{part}/{rest}",
    "doubled": "{part}/{part}/{rest}",
    "deep": "data/raw/omniglot/python/{part}/{rest}",
    "without parts": "all/{rest}",
    "zipped": "{part}.zip: {part}/{rest}",
    "torchvision's, zipped": "omniglot-py/{part}.zip: {part}/{rest}",
    "zipped, doubled": "{part}.zip: {part}/{part}/{rest}",
}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Two alphabets of two characters, twice drawn, by their paths as published."""
    lists = {
        "train": {"background": {"Greek": ["character01"]}},
        "val": {"background": {"Greek": ["character02"]}},
        "test": {"evaluation": {"Manipuri": ["character01", "character02"]}},
    }
    monkeypatch.setattr(module, "shipped_split", lambda name: lists)
    monkeypatch.setattr(module, "CHARACTERS", {"images_background": 2, "images_evaluation": 2})
    monkeypatch.setattr(module, "DRAWINGS", 2)
    found = {}
    for part, alphabet in (("images_background", "Greek"), ("images_evaluation", "Manipuri")):
        for character in (1, 2):
            for drawer in (1, 2):
                file = io.BytesIO()
                pixels = np.full((105, 105), 255, np.uint8)
                pixels[: 20 * character + 10 * drawer + 5 * len(alphabet)] = 0
                Image.fromarray(pixels).save(file, "PNG")
                found[f"{part}/{alphabet}/character{character:02d}/{character:04d}_{drawer:02d}.png"] = file.getvalue()
    return found


@pytest.mark.parametrize("outer", ["folder", "zip"])
def test_omniglot_in_every_tree(few: dict[str, bytes], tmp_path: Path, outer: str) -> None:
    hashes = {}
    for number, (name, pattern) in enumerate(TREES.items()):
        root, inner = tmp_path / str(number), dict[str, dict[str, bytes]]()
        files = {"README.md": b"#", "strokes.txt": b"1"}
        for path, content in few.items():
            part, _, rest = path.partition("/")
            where, _, inside = pattern.format(part=part, rest=rest).partition(": ")
            if inside:
                inner.setdefault(where, {})[inside] = content
            else:
                files[where] = content
        for where, members in inner.items():
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                for inside, content in members.items():
                    archive.writestr(inside, content)
            files[where] = packed.getvalue()
        if outer == "zip":
            with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
                for path, content in files.items():
                    archive.writestr(path, content)
            root = root.with_suffix(".zip")
        for path, content in files.items() if outer == "folder" else ():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        data = omniglot(root=str(root), size=7, cache=str(tmp_path / "cache" / str(number)))
        hashes[name] = data.store.hash
        assert len(data.store.names) == 4
    assert len(set(hashes.values())) == 1, hashes


def test_half_a_copy_says_what_is_there(few: dict[str, bytes], tmp_path: Path) -> None:
    for path, content in few.items():
        if path.startswith("images_background/"):
            (tmp_path / "it" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "it" / path).write_bytes(content)
    for root in (tmp_path / "it", tmp_path / "it" / "images_background"):
        with pytest.raises(
            UserError, match=r"holds 2 characters of Omniglot's 4 \(2 of images_background, 0 of images_eva"
        ):
            omniglot(root=str(root), cache=str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.real
def test_unpacked_folders_give_the_same_store(
    omniglot_root: Path, load: Callable[..., DataSet], tmp_path: Path
) -> None:
    for part in ("images_background", "images_evaluation"):
        zipfile.ZipFile(omniglot_root / f"{part}.zip").extractall(tmp_path)
    unpacked = omniglot(root=str(tmp_path), cache=str(tmp_path / "cache"))
    assert unpacked.store.hash == load(root=str(omniglot_root)).store.hash


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(
    ("algo", "floor", "words"),
    [
        ("protonet", 0.90, ["train_way=20", "steps=300"]),
        ("maml", 0.70, ["norm=support", "meta_batch=16", "steps=300"]),
    ],
)
def test_it_learns_real_omniglot(
    omniglot_root: Path, tmp_path: Path, algo: str, floor: float, words: list[str]
) -> None:
    common = [f"data.root={omniglot_root}", f"out={tmp_path}", "val_every=100", "val_episodes=50", "episodes=200"]
    run(["train", f"algo={algo}", "data=omniglot", *common, *words])
    (path,) = tmp_path.glob("*/*/result.json")
    result = json.loads(path.read_text())
    assert result["inference"] == "inductive"
    assert result["mean"] - result["interval"] > floor


@pytest.mark.real
def test_lakes_minimal_sets_come_from_their_own_archives(omniglot_root: Path, tmp_path: Path) -> None:
    five = ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin")  # background small 1
    with (
        zipfile.ZipFile(omniglot_root / "images_background.zip") as whole,
        zipfile.ZipFile(tmp_path / "images_background_small1.zip", "w") as small,
    ):
        for name in whole.namelist():
            if name.endswith(".png") and name.split("/")[1] in five:
                small.writestr(name.replace("images_background", "images_background_small1"), whole.read(name))
    (tmp_path / "images_evaluation.zip").symlink_to(omniglot_root / "images_evaluation.zip")
    data = omniglot(root=str(tmp_path), split="small1", rotations="none", size=8, cache=str(tmp_path / "cache"))
    assert {part: len(split.classes) for part, split in data.splits.items()} == {"train": 110, "val": 26, "test": 659}
    assert data.store.names[int(data.splits["val"].classes[0])] == "images_background_small1/Latin/character01"
    assert data.protocol["split"] == "small1"


@pytest.mark.real
def test_within_alphabets_every_class_of_an_episode_is_of_one(
    omniglot_root: Path, load: Callable[..., DataSet]
) -> None:
    data = load(root=str(omniglot_root), split="lake", rotations="none", within_alphabet=True)
    drawn = sampler(data, "test", Shape(20, 1, 1))
    met = set()
    for index in range(200):
        names = [data.store.names[data.splits["test"].classes[c]] for c in drawn.episode(0, "test", index).classes]
        [alphabet] = {name.split("/")[1] for name in names}
        met.add(alphabet)
    assert len(met) == 20  # all evaluation alphabets have 20 characters
    assert data.protocol["sampling"] == "within_alphabet"
