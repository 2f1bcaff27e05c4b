"""Where nothing is trained, no settings of training are asked for, and no split: fsl test algo=…, steps=0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.experiment.callbacks import Record
from fsl_cli.settings.compose import compose
from fsl_cli.settings.own_pictures import fit_to_pictures

QUICK = ["episodes=20", "trainer=cpu", "data.size=16", "backbone.filters=4"]


def folder(root: Path, classes: int, pictures: int, seed: int = 0) -> Path:
    """Class folders, each of one colour under noise."""
    dice = np.random.default_rng(seed)
    for i in range(classes):
        (root / f"c{i:02}").mkdir(parents=True)
        colour = dice.integers(0, 255, 3)
        for j in range(pictures):
            pixels = (colour + dice.integers(-9, 9, (16, 16, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"c{i:02}" / f"{j}.png")
    return root


def reached(out: Path) -> dict[str, Any]:
    (found,) = out.glob("*/*/result.json")
    return json.loads(found.read_text())


def test_a_few_pictures_of_each_class_are_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """train_way=64 of SimpleShot's, 15 queries and a training time are nobody's business."""
    root = folder(tmp_path / "photos", 60, 5)
    run(["test", "algo=simpleshot", "data=folder", f"data.root={root}", f"out={tmp_path / 'out'}", *QUICK])
    said = capsys.readouterr().out
    assert "5-way 1-shot test accuracy" in said and "4 queries a class" in said
    assert "trained for" not in said and "best validation" not in said and "Training in" not in said
    assert reached(tmp_path / "out")["query"] == 4


@pytest.mark.parametrize("algo", ["simpleshot", "protonet", "rfs", "metaoptnet"])
def test_all_classes_of_a_folder_at_once(algo: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", 12, 5)
    words = ["test", f"algo={algo}", "data=folder", f"data.root={root}", f"out={tmp_path / 'out'}", "classes=all"]
    run([*words, "episodes=4", *QUICK[1:]])
    result = reached(tmp_path / "out")
    assert (result["way"], result["shot"], result["query"], result["step"]) == (12, 1, 4, 0)
    assert result["mean"] > 0.2
    (config,) = (tmp_path / "out").glob(f"{algo}-photos-12w1s/*/config.yaml")
    assert config.exists()


def test_two_classes_will_do(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", 2, 3)
    words = ["test", "algo=protonet", "data=folder", f"data.root={root}", f"out={tmp_path / 'out'}", *QUICK]
    with pytest.raises(UserError, match="2 classes .* cannot be divided"):
        run(words)
    run([*words, "classes=all"])
    assert reached(tmp_path / "out")["way"] == 2


def test_a_split_of_its_own_stands(tmp_path: Path) -> None:
    for part, classes in (("train", 4), ("test", 3)):
        folder(tmp_path / "photos" / part, classes, 4, seed=classes)
    for i in range(3):  # a class is in one split only
        (tmp_path / "photos" / "test" / f"c{i:02}").rename(tmp_path / "photos" / "test" / f"t{i}")
    words = ["data=folder", f"data.root={tmp_path / 'photos'}", f"out={tmp_path / 'out'}", "classes=all"]
    run(["test", "algo=protonet", *words, *QUICK])
    assert reached(tmp_path / "out")["way"] == 3


def test_a_trained_run_meets_all_classes_of_its_test_split(tmp_path: Path) -> None:
    words = ["data.train_classes=12", "data.val_classes=6", "data.test_classes=9", "steps=2", "val_every=2"]
    small = ["train_way=5", "query=3", "val_episodes=2", "episodes=4", "backbone.filters=4", "trainer=cpu"]
    run(["train", *words, *small, f"out={tmp_path}"])
    (made,) = tmp_path.glob("*/*/")
    assert json.loads((made / "result.json").read_text())["way"] == 5
    run(["test", f"run={made}", "classes=all"])
    (again,) = (made / "tests").glob("*/result.json")
    assert json.loads(again.read_text())["way"] == 9


def test_queries_that_are_asked_for_are_not_fewer(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", 12, 5)
    with pytest.raises(UserError, match="shot=1 and query=15 need 16 images"):
        run(["test", "algo=protonet", "data=folder", f"data.root={root}", "query=15", "way=2", *QUICK])


def test_nothing_is_validated_and_the_test_is_that_of_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Record, "on_validation_end", lambda *_: pytest.fail("a validation"))
    few = ["data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "query=3", "episodes=4"]
    run(["test", "algo=protonet", *few, "backbone.filters=4", "trainer=cpu", f"out={tmp_path}"])
    (made,) = tmp_path.glob("*/*/")
    assert json.loads((made / "training.json").read_text())["best_value"] is None
    assert not (made / "metrics.csv").exists()
    before = (made / "episodes.csv").read_text()
    run(["test", f"run={made}"])
    (again,) = (made / "tests").glob("*/episodes.csv")
    assert again.read_text() == before


def test_a_methods_centre_is_that_of_the_training_images_there_are(tmp_path: Path) -> None:
    few = ["data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "query=3", "episodes=4"]
    run(["test", "algo=simpleshot", *few, "backbone.filters=4", "trainer=cpu", f"out={tmp_path / 'a'}"])
    (path,) = (tmp_path / "a").glob("*/*/checkpoints/best.ckpt")
    assert torch.load(path, weights_only=True)["state_dict"]["algorithm.centre"].abs().sum() > 0


def test_a_folder_is_read_as_large_as_the_network_asks(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", 12, 5)
    words = ["data=folder", f"data.root={root}", "backbone=photos"]
    assert fit_to_pictures(compose(words)).config.values["data"]["size"] == 224
    assert fit_to_pictures(compose([*words, "data.size=99"])).config.values["data"]["size"] == 99
