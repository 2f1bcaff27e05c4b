"""A split that cannot give such episodes: the message's own words, typed, help."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsl_cli.data.feasible import shape_problems, without_small
from fsl_cli.data.layouts import find
from fsl_cli.data.sampler import Shape
from fsl_cli.data.sources.folder import folder
from fsl_cli.data.store import DataSet, ImageStore, Split
from fsl_cli.errors import UserError


def made(sizes: dict[str, list[int]], on_small: str | None = "stop") -> DataSet:
    """A data set whose splits have classes with so many images."""
    counts = [count for own in sizes.values() for count in own]
    starts = np.cumsum([0, *counts])
    store = ImageStore(np.zeros((starts[-1], 1, 2, 2), np.uint8), starts, [f"c{i}" for i in range(len(counts))], "x")
    edges = np.cumsum([0, *map(len, sizes.values())])
    splits = {part: Split(np.arange(*edges[i : i + 2])) for i, part in enumerate(sizes)}
    return DataSet("it", store, splits, {"split": "x", "split_hash": "0"}, on_small=on_small)


SIZES = {
    "one class too small": {"train": [9] * 5 + [1], "val": [9] * 5, "test": [9] * 5},
    "all too small": {"train": [9] * 5, "val": [3] * 5, "test": [4] * 5},
    "one image": {"train": [9] * 5, "val": [9] * 4 + [2], "test": [1] * 5},
    "too few classes": {"train": [9] * 5, "val": [9] * 3, "test": [9] * 2},
    "all of it": {"train": [2] * 3, "val": [9] * 3 + [1], "test": [9] * 5},
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("typed", [{}, {"query": 1, "train_query": 1}, {"shot": 5, "train_shot": 5}])
@pytest.mark.parametrize("on_small", ["stop", None])
def test_each_advice_typed_takes_its_problem_away(name: str, typed: dict[str, int], on_small: str | None) -> None:
    settings: dict[str, Any] = {"way": 5, "shot": 1, "query": 15}
    settings |= {f"train_{key}": value for key, value in settings.items()} | typed
    data = made(SIZES[name], on_small)

    def problems() -> list[str]:
        train = Shape(*(settings[f"train_{key}"] for key in ("way", "shot", "query")))
        test = Shape(*(settings[key] for key in ("way", "shot", "query")))
        shapes = {"train": train, "val": test, "test": test}
        return shape_problems(without_small(data, shapes), shapes)

    for _ in range(6):
        before, typed = problems(), dict(settings)
        advised = [line for line in before if re.search(r"Try |[Tt]ype ", line)]
        if not advised:
            break
        for line in advised:
            words = re.findall(r"\b(\w+)=(\d+)", line.split(" has ", 1)[1].split(". ", 1)[1])
            for key, value in words:
                assert typed[key] != int(value), f"{line} was typed already"
                settings[key] = int(value)
            if "on_small=skip" in line and (not words or " or " not in line):
                data = data._replace(on_small="skip")
        assert not set(advised) & set(problems())
    hopeless = problems()
    assert all("2 images or more" in line for line in hopeless)
    assert not hopeless or min(map(min, SIZES[name].values())) == 1
    assert not hopeless or on_small is None or name in ("one image", "all of it")


def test_classes_too_small_are_left_out_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    data = made({"train": [9, 9, 9, 1], "val": [9, 9, 2], "test": [9, 9]})
    shapes = {"train": Shape(2, 1, 1), "val": Shape(2, 1, 4), "test": Shape(2, 1, 4)}
    train, val = shape_problems(data, shapes)
    assert "c3 in the train split of it has 1. Type data.on_small=skip to leave out the 1 class with fewer." in train
    assert "c6 in the val split of it has 2. Try query=1; or type data.on_small=skip to leave out the 1 class" in val
    skipped = without_small(data._replace(on_small="skip"), shapes)
    assert not shape_problems(skipped, shapes)
    assert [len(split.classes) for split in skipped.splits.values()] == [3, 2, 2]
    assert skipped.left_out == [
        "classes of train with fewer than 2 pictures: c3 (1)",
        "classes of val with fewer than 5 pictures: c6 (2)",
    ]
    assert "Left out: classes of train with fewer than 2 pictures: c3 (1).\n" in capsys.readouterr().out
    assert skipped.protocol["split_hash"] != data.protocol["split_hash"], "another division of the classes"
    assert without_small(data, shapes) is data


def pictures(root: Path, *names: str, count: int = 4) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (4, 4)).save(root / name / f"{i}.png")
    return root


def test_classes_of_one_picture_go_before_the_others_are_divided(tmp_path: Path) -> None:
    root = pictures(tmp_path / "it", *(f"c{i}" for i in range(6)))
    pictures(root, "one", count=1)
    shapes = dict.fromkeys(("train", "val", "test"), Shape(2, 1, 1))
    with_it, without = (
        folder(str(root), size=4, on_small=choice, cache=str(tmp_path / "cache"))  # type: ignore[arg-type]
        for choice in ("stop", "skip")
    )
    [problem] = shape_problems(with_it, shapes)
    assert "one in the " in problem and "Type data.on_small=skip to leave out the 1 class" in problem
    assert not shape_problems(without_small(without, shapes), shapes)
    assert without.left_out == ["1 class, one: with a single one"]


def test_two_classes_are_told_what_to_do_and_six_will_do(tmp_path: Path) -> None:
    root = pictures(tmp_path / "two", "ash", "elm")
    with pytest.raises(UserError) as caught:
        folder(str(root), size=4, cache=str(tmp_path / "cache"))
    said = str(caught.value)
    needed = re.search(r"(\d+) classes or more", said)
    support = re.search(r"fsl predict support=(\S+) ", said)
    assert needed and support
    assert find(support[1], "support").groups[""].keys() == {"ash", "elm"}
    pictures(root, *(f"more{i}" for i in range(int(needed[1]) - 2)))
    data = folder(str(root), size=4, cache=str(tmp_path / "cache"))
    shapes = dict.fromkeys(("train", "val", "test"), Shape(2, 1, 1))
    assert not shape_problems(data, shapes)
