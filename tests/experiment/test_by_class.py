"""What a test says of each class."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fsl_cli.cli import run
from fsl_cli.experiment import by_class


def test_accuracy_f1_and_confusion_are_those_of_scikit_learn(tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    way, many = 5, 8
    classes = np.stack([rng.permutation(many)[:way] for _ in range(60)])  # (T, way)
    y, guess = (rng.integers(way, size=(60, 15)) for _ in range(2))
    guess = np.where(rng.random(y.shape) < 0.6, y, guess)
    half = [by_class.pairs(*(torch.from_numpy(part[i::2]) for part in (classes, y, guess))) for i in (0, 1)]
    tally = half[0] + half[1]
    true, taken = (np.take_along_axis(classes, part, 1).ravel() for part in (y, guess))
    names = {number: f"class {number}" for number in range(many)}
    found = by_class.summary(by_class.by_class(tally, names))
    assert found["classes"] == many
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(true, taken, average="macro"))
    assert found["macro_accuracy"] == pytest.approx(metrics.recall_score(true, taken, average="macro"))
    by_class.write(tmp_path, tally, names)
    with open(tmp_path / "classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    matrix = metrics.confusion_matrix(true, taken)
    assert [int(row["right"]) for row in rows] == matrix.diagonal().tolist()
    assert [float(row["accuracy"]) for row in rows] == pytest.approx(
        metrics.recall_score(true, taken, average=None).tolist()
    )
    with open(tmp_path / "confusion.csv", newline="") as file:
        counts = {(row["class"], row["taken_for"]): int(row["queries"]) for row in csv.DictReader(file)}
    assert counts == {(names[i], names[j]): matrix[i, j] for i, j in zip(*matrix.nonzero(), strict=True)}
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_classes_recur_where_each_is_met_ten_times() -> None:
    assert by_class.recurs(1000, 5, 20) and not by_class.recurs(1000, 5, 1692)  # miniImageNet, turned Omniglot
    assert by_class.recurs(10, 12, 12) and not by_class.recurs(9, 12, 12)  # all classes of a folder
    assert by_class.recurs(100, [5, 15], 100)


def test_a_test_tells_of_each_class_and_agrees_with_its_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["data.train_classes=6", "data.val_classes=5", "data.test_classes=6", "data.drawings=6", "data.size=16"]
    words = [
        "algo=protonet",
        "data=glyphs",
        *small,
        "train_way=5",
        "query=2",
        "train_query=2",
        "steps=2",
        "val_every=2",
    ]
    run(["train", *words, "val_episodes=4", "episodes=20", "backbone.filters=4", "shot=1"])
    [folder] = {path.parent for path in tmp_path.rglob("result.json")}
    result = json.loads((folder / "result.json").read_text())
    assert result["by_class"]["classes"] == 6
    assert "mean over 6 classes: accuracy" in capsys.readouterr().out
    with open(folder / "classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    right, queries = (sum(int(row[key]) for row in rows) for key in ("right", "queries"))
    assert queries == 20 * 5 * 2 and right / queries == pytest.approx(result["mean"])
    assert (folder / "confusion.png").exists()
    run(["test", f"run={folder}", "episodes=5"])
    assert not (folder / "tests" / "glyphs-5w1s-episodes=5" / "classes.csv").exists()
