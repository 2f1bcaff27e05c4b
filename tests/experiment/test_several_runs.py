"""A run on several data sets: a test of each, their mean, and what of it may be asked for alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import fmean

import pytest
import yaml

from fsl_cli.cli import run
from fsl_cli.errors import UserError

SMALL = [f"data.{part}_classes=6" for part in ("train", "val", "test")]
DATA = ["data=[glyphs,glyphs]", *SMALL, "data.glyphs2.seed=1", "data.glyphs2.rotations=all", "data.size=16"]
QUICK = ["backbone.filters=4", "steps=4", "val_every=2", "val_episodes=3", "episodes=4", "trainer=cpu", "train_way=5"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("several")
    run(["train", *DATA, *QUICK, "meta_batch=2", f"out={out}"])
    (folder,) = out.glob("*/*")
    return folder


def read(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_the_result_is_the_mean_of_a_test_of_each(trained: Path) -> None:
    assert trained.parent.name == "protonet-glyphs+glyphs2-5w1s"
    result, each = read(trained), [read(trained / "tests" / f"{name}-5w1s") for name in ("glyphs", "glyphs2")]
    assert result["mean"] == pytest.approx(fmean(one["mean"] for one in each)) and result["episodes"] == 4
    assert [one["mean"] for one in result["data_sets"].values()] == [one["mean"] for one in each]
    assert [one["rotations"] for one in each] == ["none", "all"] and each[1]["trained_on"] == result["data"]
    columns = [scores(trained / "tests" / f"{name}-5w1s") for name in ("glyphs", "glyphs2")]
    assert scores(trained) == pytest.approx([fmean(pair) for pair in zip(*columns, strict=True)])
    assert all(one["calibration"] == "fitted on validation, 5w1s" for one in each)
    classes = json.loads((trained / "classes.json").read_text())
    assert len(classes["train"]) == 12 and {name.partition(":")[0] for name in classes["val"]} == {"glyphs", "glyphs2"}


def scores(folder: Path) -> list[float]:
    with open(folder / "episodes.csv") as file:
        return [float(row["accuracy"]) for row in csv.DictReader(file)]


def test_one_is_tested_as_the_run_has_it(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read(trained / "tests" / "glyphs2-5w1s")
    run(["test", f"run={trained}", "data=glyphs2"])
    after = read(trained / "tests" / "glyphs2-5w1s")
    assert {**before, "seconds": 0} == {**after, "seconds": 0}
    run(["test", f"run={trained}", "shot=2", "query=3"])
    said = capsys.readouterr().out
    assert "mean of 2 data sets" in said and said.count("glyphs2  ") == 1
    run(["report", str(trained)])
    assert "glyphs2 (%)" in capsys.readouterr().out


def test_what_is_of_one_data_set_asks_which(trained: Path) -> None:
    for words in (["show", "episode"], ["test", "similarity=true"], ["embed", "out=x.npz"]):
        with pytest.raises(UserError, match=r"[Tt]ype data=glyphs"):
            run([*words, f"run={trained}"])
    with pytest.raises(UserError, match=r"data\.glyphs\.seed"):
        run(["test", f"run={trained}", "data.seed=2"])


def test_classes_that_were_trained_on_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trained or validated on"):
        run(["test", f"run={trained}", "data=glyphs", "data.train_classes=2", "data.val_classes=2"])
    assert yaml.safe_load((trained / "config.yaml").read_text())["choices"]["data"] == "glyphs+glyphs2"
    with pytest.raises(UserError, match="glyphs2 have the same images"):
        run(["train", "data=[glyphs,glyphs]", *SMALL, *QUICK, f"out={tmp_path}"])
    assert not list(tmp_path.iterdir())
