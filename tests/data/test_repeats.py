"""Pictures that are there twice, and classes that repeat others, are told before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsl_cli.cli import run
from fsl_cli.data.places import Folder
from fsl_cli.data.repeats import repeat_warnings, same_files
from fsl_cli.errors import UserError


def draw(root: Path, name: str, images: int, seed: int) -> None:
    dice = np.random.default_rng(seed)
    (root / name).mkdir(parents=True)
    for i in range(images):
        Image.fromarray(dice.integers(0, 255, (20, 20), dtype=np.uint8)).save(root / name / f"{i}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed in range(9):
        draw(tmp_path / "flowers", f"class{seed}", 4, seed)
    return tmp_path / "flowers"


def groups(root: Path) -> list[list[tuple[str, str]]]:
    place = Folder(root)
    return same_files({name: [picture.file for picture in place.images(name)] for name in place.folders()})


def test_copies_are_found_by_content_whatever_they_are_called(root: Path) -> None:
    assert groups(root) == []
    (root / "class3" / "another name.png").write_bytes((root / "class3" / "0.png").read_bytes())
    (root / "class5" / "7.png").write_bytes((root / "class4" / "1.png").read_bytes())
    within, across = repeat_warnings(groups(root))
    assert "1 picture is there twice in a class" in within
    assert "another name.png" in within
    assert "1 picture is in two classes" in across
    assert "class4" in across
    several = [("a", "a/1.png"), ("b", "b/1.png"), ("b", "b/2.png")]
    assert "b/1.png and b/2.png" in next(repeat_warnings([several]))


def test_check_tells_of_copies(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "class3" / "copy.png").write_bytes((root / "class3" / "0.png").read_bytes())
    run(["check", "data=folder", f"data.root={root}"])
    assert "there twice in a class" in capsys.readouterr().out


def test_a_test_class_that_repeats_another_is_refused_before_training(root: Path, tmp_path: Path) -> None:
    for part, numbers in {"train": "0123", "val": "45", "test": "67"}.items():
        for number in numbers:
            (root.parent / "divided" / part).mkdir(parents=True, exist_ok=True)
            (root / f"class{number}").rename(root.parent / "divided" / part / f"class{number}")
    for file in (root.parent / "divided" / "train" / "class2").iterdir():
        (root.parent / "divided" / "test" / "class6" / file.name).write_bytes(file.read_bytes())
    words = [
        "data=folder",
        f"data.root={root.parent / 'divided'}",
        "data.size=16",
        "data.channels=1",
        "way=2",
        "shot=1",
    ]
    more = ["query=1", "steps=1", "backbone.filters=4", f"out={tmp_path / 'out'}", "train_way=2", "train_query=1"]
    with pytest.raises(UserError, match="class6 has the same image as class2 in train"):
        run(["train", *words, *more])
    assert not (tmp_path / "out").exists()
