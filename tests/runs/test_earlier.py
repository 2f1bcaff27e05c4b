"""Runs that an earlier fsl made are opened as before; `made_by_0.1.0` is such a run, of MAML on glyphs, six steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fsl_cli.cli import run
from fsl_cli.experiment.finalize import finalize
from fsl_cli.report.gather import gather, identity
from fsl_cli.runs.jobs import earlier_run
from fsl_cli.runs.run import Run
from fsl_cli.settings.compose import compose
from fsl_cli.settings.schema import Settings

MADE = Path(__file__).with_name("made_by_0.1.0")


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MADE, tmp_path / "run"))


def test_it_is_tested_as_before(earlier: Path) -> None:
    before = json.loads((MADE / "result.json").read_text())
    before["image"] |= {"items": "images", "class_rows": 0}  # which is all that there was
    run(["test", f"run={earlier}"])
    now = json.loads((earlier / "tests" / "glyphs-5w1s" / "result.json").read_text())
    assert now["mean"] == pytest.approx(before["mean"], abs=0.02)  # 90 answers, of float32
    assert now["step"] == before["step"]
    for key in ("algorithm", "data", "images", "split_hash", "way", "shot", "query", "episode_seed", "norm", "image"):
        assert now[key] == before[key], key


def test_it_is_reported_beside_a_new_test(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["test", f"run={earlier}", "shot=5"])
    run(["report", str(earlier)])
    out = capsys.readouterr().out
    assert "glyphs 5-way 1-shot" in out
    assert "glyphs 5-way 5-shot" in out


def test_it_is_predicted_with(earlier: Path) -> None:
    import torch

    from fsl_cli import load_run

    pixels = torch.randint(0, 256, (10, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    shares = load_run(earlier).adapt(pixels[:5], "abcde")(pixels[5:])
    torch.testing.assert_close(shares.sum(-1), torch.ones(5))


def test_it_is_resumed_where_it_stood(earlier: Path) -> None:
    config = (earlier / "config.yaml").read_text()
    (earlier / "config.yaml").write_text(config.replace("steps: 6\n", "steps: 9\n"))
    (earlier / "training.json").unlink()
    (earlier / "result.json").unlink()
    run(["train", f"resume={earlier}"])
    rows = (earlier / "metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["3", "6", "9"]
    assert rows[:2] == (MADE / "metrics.csv").read_text().splitlines()[1:]
    assert json.loads((earlier / "training.json").read_text())["steps"] == 9


def test_a_finished_one_needs_no_resuming(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["train", f"resume={earlier}"])
    assert "is finished" in capsys.readouterr().out


def today(out: Path, *words: str) -> Settings:
    """What the run's own words compose today; they name more settings than there were."""
    return finalize(compose([*(word for word in Run(MADE).overrides if "out=" not in word), f"out={out}", *words]))


def test_a_sweep_takes_it_for_the_run_that_its_words_ask_for(tmp_path: Path) -> None:
    place = shutil.copytree(MADE, tmp_path / "maml-glyphs-5w1s" / "earlier")
    found = earlier_run(today(tmp_path))
    assert found is not None
    assert found.folder == place
    assert earlier_run(today(tmp_path, "backbone.slope=0.2")) is None


@pytest.mark.parametrize(("word", "methods"), [("seed=1", 1), ("backbone.slope=0.2", 2)])
def test_a_report_counts_it_with_the_runs_of_today(tmp_path: Path, word: str, methods: int) -> None:
    shutil.copytree(MADE, tmp_path / "earlier")
    new = shutil.copytree(MADE, tmp_path / "new")
    settings = today(tmp_path, word)
    result = json.loads((new / "result.json").read_text())
    (new / "result.json").write_text(json.dumps({**result, "seed": settings.seed}))
    Run(new).begin(settings, [])
    found = gather([tmp_path]).tests
    assert len(found) == 2
    assert len({identity(test.settings) for test in found}) == methods


@pytest.mark.parametrize(
    "target", ["fsl_cli.backbones.conv4.Gone", "fsl_cli.gone.Conv4", "fsl_cli.backbones.conv4.EPS"]
)
def test_runs_of_a_class_that_is_gone_are_reported_as_they_are(tmp_path: Path, target: str) -> None:
    for name, words in (("earlier", ()), ("new", ("seed=1",))):
        place = shutil.copytree(MADE, tmp_path / name)
        if words:
            Run(place).begin(today(tmp_path, *words), [])
        config = (place / "config.yaml").read_text()
        (place / "config.yaml").write_text(config.replace("fsl_cli.backbones.conv4.Conv4", target))
    assert len(gather([tmp_path]).tests) == 2
