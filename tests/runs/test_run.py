"""What a run leaves behind, and testing it again."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.runs.checkpoints import load_weights, write_torch
from fsl_cli.settings.schema import Settings
from fsl_cli.stats import mean_interval

SMALL = [
    "data.train_classes=40", "data.val_classes=25", "data.test_classes=25", "train_way=5", "train_query=2", "query=3",
    "backbone.filters=8", "steps=5", "val_every=2", "val_episodes=6", "episodes=8", "trainer=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    run(["train", "seed=3", f"out={out}", *SMALL])
    (path,) = out.glob("*/*/")
    return path


def result(path: Path) -> dict:
    return json.loads((path / "result.json").read_text())


def rows(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def test_the_folder_holds_what_the_design_says(folder: Path) -> None:
    assert folder.parent.name == "protonet-glyphs-5w1s"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names - {"changes.diff"} == {  # which is there where fsl differs from its commit
        "config.yaml", "overrides.txt", "environment.json", "classes.json", "metrics.csv", "curves.png",
        "training.json", "calibration.json", "reliability.png",
        "result.json", "episodes.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
    }  # fmt: skip
    assert "seed=3" in (folder / "overrides.txt").read_text().splitlines()
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_validation_comes_every_so_many_steps_and_at_the_end(folder: Path) -> None:
    assert [row["step"] for row in rows(folder / "metrics.csv")] == ["2", "4", "5"]


def test_the_best_checkpoint_is_the_best_by_validation(folder: Path) -> None:
    best = max(rows(folder / "metrics.csv"), key=lambda row: float(row["val_accuracy"]))
    saved = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["global_step"] == int(best["step"]) == result(folder)["step"]
    training = json.loads((folder / "training.json").read_text())
    assert training["best_value"] == pytest.approx(float(best["val_accuracy"]))
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5


def test_the_result_is_the_mean_over_the_episodes_with_its_interval(folder: Path) -> None:
    accuracy = [float(row["accuracy"]) for row in rows(folder / "episodes.csv")]
    assert [int(row["index"]) for row in rows(folder / "episodes.csv")] == list(range(8))
    assert (result(folder)["mean"], result(folder)["interval"]) == pytest.approx(mean_interval(accuracy))
    assert {key: result(folder)[key] for key in ("way", "shot", "query", "episodes", "norm", "inference", "seed")} == {
        "way": 5, "shot": 1, "query": 3, "episodes": 8, "norm": "running", "inference": "inductive", "seed": 3,
    }  # fmt: skip


def test_testing_again_reaches_the_same_number(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["test", f"run={folder}"])
    again = folder / "tests" / "glyphs-5w1s"
    assert (again / "episodes.csv").read_text() == (folder / "episodes.csv").read_text()
    assert f"{result(folder)['mean']:.2%}" in capsys.readouterr().out


def test_a_run_that_was_stopped_can_be_tested_and_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = tmp_path / "stopped"
    shutil.copytree(folder, stopped, ignore=shutil.ignore_patterns("training.json", "result.json", "last.ckpt"))
    run(["test", f"run={stopped}"])
    tested = result(stopped / "tests" / "glyphs-5w1s")
    assert (tested["mean"], tested["changes"]) == (result(folder)["mean"], ["unfinished=true"])
    saved = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert tested["training_seconds"] == round(saved["callbacks"]["Record"]["seconds"], 1)
    printed = capsys.readouterr().out
    assert f"step {tested['step']} of 5; to go on: fsl train resume={stopped}" in printed.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["way=20", "shot=2"], "glyphs-20w2s"),
        (["episodes=5", "query=2"], "glyphs-5w1s-episodes=5-query=2"),
        (["data=glyphs", "data.seed=9", "data.test_classes=12"], "glyphs-5w1s-data.seed=9-data.test_classes=12"),
    ],
)
def test_a_run_can_be_tested_under_another_protocol(folder: Path, words: list[str], name: str) -> None:
    run(["test", f"run={folder}", *words])
    tested = result(folder / "tests" / name)
    for word in words:
        key, value = word.split("=")
        assert "." in key or str(tested[key]) == value
    assert tested["trained_on"] == "glyphs"
    assert tested["changes"] == words
    assert len(rows(folder / "tests" / name / "episodes.csv")) == tested["episodes"]


def test_another_data_set_is_brought_to_the_runs_images(folder: Path, tmp_path: Path) -> None:
    """A model of 28 x 28 grey glyphs meets a folder of colour pictures of other sizes."""
    from PIL import Image

    for label in range(8):
        (tmp_path / f"class {label}").mkdir()
        for number in range(4):
            Image.new("RGB", (40, 50), (30 * label, 9 * number, 99)).save(tmp_path / f"class {label}" / f"{number}.png")
    test = ["way=2", "data=folder", f"data.root={tmp_path}", "data.test_fraction=0.5", "episodes=3", "data.name=signs"]
    run(["test", f"run={folder}", *test])
    (path,) = folder.glob("tests/signs-2w1s*/result.json")
    tested = json.loads(path.read_text())
    assert (tested["data"], tested["trained_on"]) == ("signs", "glyphs")


def test_classes_that_the_model_was_trained_on_are_no_test(folder: Path) -> None:
    """With fewer training classes the test split begins among those of the run's training."""
    with pytest.raises(UserError, match=r"25 of the 25 test classes, such as glyph 0020, are among those"):
        run(["test", f"run={folder}", "data.train_classes=10", "data.val_classes=10"])
    assert not list(folder.glob("tests/*train_classes*"))


@pytest.mark.parametrize(
    "word", ["seed=77", "train_way=7", "optim.lr=3", "backbone.weights=x.pt", "image.ink=false", "augment.flip=true"]
)
def test_settings_that_a_test_does_not_read_are_refused(folder: Path, word: str) -> None:
    with pytest.raises(UserError, match=f"{word} has no effect on a test"):
        run(["test", f"run={folder}", word])


def test_a_test_sees_what_the_run_sees(folder: Path) -> None:
    with pytest.raises(UserError, match="images of 14 pixels a side, and this run sees 28. Type data.size=28"):
        run(["test", f"run={folder}", "data.size=14"])
    with pytest.raises(UserError, match="Which run. A folder's name is empty"):
        run(["test", "run="])
    with pytest.raises(UserError, match="distractors=2: algo=protonet learns from images with labels alone"):
        run(["test", f"run={folder}", "distractors=2"])


@pytest.mark.parametrize("damage", ["", "step,val_accuracy\n2,abc\n"])
def test_a_table_of_validations_that_was_lost_comes_back_from_the_checkpoint(
    folder: Path, tmp_path: Path, damage: str
) -> None:
    again = shutil.copytree(folder, tmp_path / "again")
    whole = (again / "metrics.csv").read_text()
    (again / "metrics.csv").write_text(damage)
    (again / "training.json").unlink()
    run(["train", f"resume={again}"])
    assert (again / "metrics.csv").read_text() == whole


def test_another_machine_goes_on_as_exactly_as_the_run_began(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = shutil.copytree(folder, tmp_path / "again")
    config = yaml.safe_load((again / "config.yaml").read_text())
    own = {"precision": "bf16-mixed", "gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"}
    config["trainer"] |= {**own, "accelerator": "gpu", "devices": 8}
    (again / "config.yaml").write_text(yaml.safe_dump(config))
    (again / "training.json").unlink()
    trained: list[Settings] = []
    monkeypatch.setattr("fsl_cli.experiment.training.train", lambda run, settings, *_: trained.append(settings))
    run(["train", f"resume={again}", "trainer=cpu"])
    found = trained[0].trainer
    assert {key: found.get(key) for key in own} == own
    assert (found.get("accelerator"), found.get("devices")) == ("cpu", 1)


def test_mean_and_interval_by_hand() -> None:
    mean, half = mean_interval([0.2, 0.4, 0.9])
    assert mean == pytest.approx(0.5)
    assert half == pytest.approx(1.96 * 0.36055512754639896 / 3**0.5)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_an_error_without_bounds_has_a_mean_and_no_interval(value: float) -> None:
    """As where one curve of a regression's test diverges."""
    mean, half = mean_interval([0.5, value])
    assert not math.isfinite(mean) and math.isnan(half)


def test_early_stopping_ends_a_run_that_no_longer_improves(tmp_path: Path) -> None:
    run(
        [
            "train",
            f"out={tmp_path}",
            *SMALL,
            "steps=40",
            "val_every=1",
            "patience=2",
            "optim.lr=1e-30",
            "norm=group",
            "test=false",
        ]
    )
    (training,) = tmp_path.glob("*/*/training.json")
    assert json.loads(training.read_text())["steps"] == 3
    assert not list(tmp_path.glob("*/*/result.json"))


def test_learning_rates_fall_as_asked(tmp_path: Path) -> None:
    common = ["train", *SMALL, "steps=4", "val_every=2", "test=false"]
    run([*common, f"out={tmp_path / 'a'}", "schedule.kind=step", "schedule.every=2", "schedule.factor=0.1"])
    run([*common, f"out={tmp_path / 'b'}", "schedule.kind=cosine", "optim=sgd"])
    rates = [
        [float(row["learning_rate"]) for row in rows(next((tmp_path / out).glob("*/*/metrics.csv")))] for out in "ab"
    ]
    assert rates[0] == pytest.approx([1e-4, 1e-5])  # after steps 2 and 4
    assert rates[1] == pytest.approx([0.05, 0.0])


def test_gradients_are_clipped_as_asked(tmp_path: Path) -> None:
    """SGD with rate 1 moves each weight by its clipped gradient: at most 1e-3 a step."""
    clip = ["trainer.gradient_clip_val=0.001", "trainer.gradient_clip_algorithm=value"]
    sgd = ["optim=sgd", "optim.lr=1", "optim.momentum=0", "optim.nesterov=false", "optim.weight_decay=0"]
    moved = []
    for name, words in (("free", []), ("clipped", clip)):
        steps = [*SMALL, "steps=2", "val_every=1", "test=false", f"out={tmp_path / name}"]
        run(["train", *steps, *sgd, *words])
        (folder,) = (tmp_path / name).glob("*/*/")
        moved.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    norms = [key for key in moved[0] if key.endswith("norms.0.bias")]  # zero at first
    assert moved[0][norms[0]].abs().max() > 0.01
    assert 0 < moved[1][norms[0]].abs().max() <= 0.002


def test_a_checkpoint_with_a_layer_that_the_network_lacks_is_refused(tmp_path: Path) -> None:
    """Averages of a norm, which `fit` leaves alone, too."""
    net = torch.nn.Linear(1, 1)
    for state in ({**net.state_dict(), "norm.mean": torch.zeros(1)}, {"weight": net.weight.detach()}):
        write_torch(tmp_path / "best.ckpt", {"state_dict": state, "global_step": 1})
        with pytest.raises(UserError, match=r"best.ckpt does not fit this algorithm and backbone: .*(norm.mean|bias)"):
            load_weights(tmp_path / "best.ckpt", net)
