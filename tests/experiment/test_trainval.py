"""train_on=trainval: validation classes are trained on too, as papers do once the number of steps is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.runs.run import Run
from tests.conftest import tiny_data

DATA = ["data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "data.rotations=none", "data.size=16"]
QUICK = ["backbone.filters=4", "steps=6", "val_every=2", "val_episodes=5", "episodes=5", "trainer=cpu"]
WORDS = ["train", "data=glyphs", *DATA, *QUICK, "train_on=trainval"]


def test_the_training_split_takes_in_the_validation_classes() -> None:
    data = tiny_data(30, turns=4)
    both = data.training_on_validation()
    train, val, test = (set(data.splits[part].classes.tolist()) for part in ("train", "val", "test"))
    assert set(both.splits["train"].classes.tolist()) == train | val and both.splits["train"].turns == 4
    assert set(both.splits["val"].classes.tolist()) == val and set(both.splits["test"].classes.tolist()) == test


def test_the_last_step_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run([*WORDS, "calibrate=false", "train_way=18", "train_query=1", f"out={tmp_path}"])  # 18 ways: all 12 + 6 classes
    (folder,) = tmp_path.glob("*/*")
    assert Run(folder).training.best_step == json.loads((folder / "result.json").read_text())["step"] == 6
    with open(folder / "metrics.csv") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4", "6"]
    assert "validation classes too, so step 6 of 6 is kept" in capsys.readouterr().out
    run(["test", f"run={folder}", "calibrate=true", "shot=2", "episodes=5"])  # nothing is held out that could be fitted
    assert "temperature" not in capsys.readouterr().out


@pytest.mark.parametrize("word", ["calibrate=true", "patience=3"])
def test_what_needs_classes_held_out_is_refused(word: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Type calibrate=false patience=null"):
        run([*WORDS, "calibrate=false", word, f"out={tmp_path}"])
    with pytest.raises(UserError, match="none is held out"):
        run(["train", "algo=maml", "data=sinusoid", "train_on=trainval", "calibrate=false", f"out={tmp_path}"])
    assert not list(tmp_path.iterdir())
