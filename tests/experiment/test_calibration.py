"""Probabilities mean what they say: the temperature, the errors before and after, and where they end up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fsl_cli.experiment.calibration import Judged, calibration_error, fit_temperature, nll, reliability


def drawn(n: int, way: int, sharper: float) -> Judged:
    """Labels drawn from the softmax of logits, which then are told `sharper` times as large."""
    dice = torch.Generator().manual_seed(way)
    logits = 2 * torch.randn(n, way, generator=dice, dtype=torch.float64)
    y = torch.multinomial(logits.softmax(-1), 1, generator=dice).squeeze(1)
    return Judged(sharper * logits, y)


@pytest.mark.parametrize("sharper", [1e-6, 0.2, 1.0, 30.0, 1e9])
def test_the_temperature_undoes_what_logits_were_multiplied_by(sharper: float) -> None:
    judged = [drawn(8000, 5, sharper), drawn(8000, 3, sharper)]
    temperature = fit_temperature(judged)
    assert temperature == pytest.approx(sharper, rel=0.05)
    assert calibration_error(judged, temperature) < 0.015
    others = [nll(judged, temperature * factor) for factor in (0.8, 1.25)]
    assert nll(judged, temperature) < min(others)


def test_a_temperature_changes_no_prediction() -> None:
    logits, _ = drawn(500, 5, 3.0)
    assert torch.equal(logits.argmax(-1), (logits / fit_temperature([drawn(500, 5, 3.0)])).argmax(-1))


@pytest.mark.parametrize("n", [50, 5000])
def test_validation_without_an_error_shows_no_more_than_its_length(n: int) -> None:
    """Else the temperature would be 0, and every prediction sure."""
    logits = torch.eye(5).repeat(n // 5, 1) * 40
    judged = [Judged(logits, torch.arange(5).repeat(n // 5))]
    doubt = 1 - float((logits[:1] / fit_temperature(judged)).softmax(-1).max())
    assert doubt == pytest.approx(1 / (n + 2), rel=0.01)


def test_logits_that_say_nothing_keep_their_temperature() -> None:
    y = torch.tensor([0, 1, 1])
    assert fit_temperature([]) == 1
    assert fit_temperature([Judged(torch.zeros(3, 2), y)]) == 1
    assert fit_temperature([Judged(torch.full((3, 2), math.nan), y)]) == 1


def test_the_calibration_error_is_the_mean_gap_between_sure_and_right() -> None:
    """Of 60 predictions 90% sure 45 are right, of 40 that are 60% sure 24: (60 * 0.15 + 0) / 100."""

    def logits(sure: float, n: int) -> Tensor:
        return torch.tensor([[math.log(sure), math.log(1 - sure)]]).repeat(n, 1)

    y = torch.tensor([0] * 45 + [1] * 15 + [0] * 24 + [1] * 16)
    judged = [Judged(torch.cat([logits(0.9, 60), logits(0.6, 40)]), y)]
    assert calibration_error(judged) == pytest.approx(0.09, abs=1e-6)
    unsure, sure = reliability(judged)
    assert unsure == pytest.approx((0.4, 0.6, 0.6), abs=1e-6)
    assert sure == pytest.approx((0.6, 0.9, 0.75), abs=1e-6)


WORDS = [
    "data.train_classes=30", "data.val_classes=12", "data.test_classes=12", "data.size=16", "data.drawings=8",
    "way=3", "train_way=3", "train_query=2", "query=3", "steps=2", "val_every=2", "val_episodes=4", "episodes=4",
    "backbone.filters=4", "trainer=cpu", "logger=[]",
]  # fmt: skip


def test_a_run_keeps_its_temperature_and_a_test_says_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fsl_cli.cli import run

    run(["train", *WORDS, f"out={tmp_path}", "algo.temperature=0.01"])
    assert "calibration error" in capsys.readouterr().out
    [folder] = tmp_path.glob("protonet-glyphs-3w1s/*")
    kept = json.loads((folder / "calibration.json").read_text())
    result = json.loads((folder / "result.json").read_text())
    assert kept["temperature"] > 1  # distances were multiplied by 100
    assert result["logit_temperature"] == kept["temperature"]
    assert result["calibration"] == "fitted on validation, 3w1s"
    assert result["loss_calibrated"] < result["loss"]
    assert (folder / "reliability.png").stat().st_size > 1000

    run(["test", f"run={folder}", "shot=2", "query=2"])  # a task of its own
    other = json.loads(next(folder.glob("tests/*/result.json")).read_text())
    assert other["calibration"] == "fitted on validation, 3w2s"
    assert other["logit_temperature"] != kept["temperature"]
    run(["test", f"run={folder}", "way=12"])  # as many as validation has
    run(["test", f"run={folder}", "calibrate=false"])
    off = json.loads((folder / "tests" / "glyphs-3w1s-calibrate=false" / "result.json").read_text())
    assert (off["logit_temperature"], off["calibration"], off["ece"]) == (None, "none", result["ece"])
    assert off["mean"] == result["mean"]
