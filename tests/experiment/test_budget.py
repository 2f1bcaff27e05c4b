"""time=2h: what fits is worked out from a pace, with the schedule; a run keeps to it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from fsl_cli.errors import UserError
from fsl_cli.experiment.budget import Deadline, Pace, fitted, shortened
from fsl_cli.experiment.finalize import seconds
from fsl_cli.experiment.running import start
from fsl_cli.settings.binding import demand_fit
from fsl_cli.settings.compose import compose


@pytest.fixture(scope="module")
def settings() -> Any:
    words = ["time=1h", "steps=10000", "val_every=500", "val_episodes=200", "schedule.kind=linear"]
    return demand_fit(compose([*words, "+schedule.table={0:1.0,4000:0.5}"]).values)


@pytest.mark.parametrize(("text", "count"), [("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("90s", 90), ("1d", 86400)])
def test_a_time_is_read(text: str, count: float) -> None:
    assert seconds(text) == count


@pytest.mark.parametrize("text", ["90", "2 hours", "h", "0h", "-1h", "1h-", "two"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UserError, match="such as time=2h"):
        seconds(text)


@pytest.mark.parametrize("left", [60, 200, 600, 3000])
@pytest.mark.parametrize("pace", [Pace(0.1, 0.01), Pace(1.0, 0.02), Pace(0.01, 0.03)])
def test_training_validation_and_test_fit_together(settings: Any, left: float, pace: Pace) -> None:
    now = fitted(settings, pace, left)
    validations = now.steps / now.val_every
    assert now.steps <= settings.steps and validations == int(validations) >= 1
    took = now.steps * pace.step + pace.episode * (validations * now.val_episodes + now.episodes)
    assert took <= left
    if now.steps < settings.steps:  # one interval more would be too much
        assert took + now.val_every * pace.step + pace.episode * now.val_episodes > left
        assert now.schedule.get("steps") == now.steps


def test_time_for_more_than_all_steps_changes_nothing(settings: Any) -> None:
    assert fitted(settings, Pace(0.1, 0.01), 10**6) == settings


def test_a_schedule_comes_earlier_as_a_whole() -> None:
    before = {"kind": "linear", "steps": 10000, "every": 2000, "table": {0: 1.0, 4000: 0.5}}
    assert shortened(before, 0.25) == {"kind": "linear", "steps": 2500, "every": 500, "table": {0: 1.0, 1000: 0.5}}


def test_a_time_too_short_for_the_test_says_what_fits(settings: Any) -> None:
    with pytest.raises(UserError, match=r"time=1h: too short. A step takes 0.1 s.* Type episodes=\d+ val_ep"):
        fitted(settings, Pace(0.1, 1.0), 60)


def test_training_ends_for_the_test() -> None:
    class At:
        global_step, max_steps, should_stop = 5, 10, False

    for reserve, ends in ((0, False), (100, True)):
        trainer, deadline = At(), Deadline(time.monotonic() + 50, reserve)
        deadline.on_validation_end(trainer, None)
        assert (deadline.passed, trainer.should_stop) == (ends, ends)


def test_a_run_with_a_time_has_its_steps_and_schedule_in_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsl_cli.experiment.budget.measured", lambda *_: Pace(1.0, 0.001))
    small = [
        "data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "data.size=16", "train_query=2",
        "query=2", "train_way=5", "backbone.filters=4", "steps=1000", "val_every=2", "val_episodes=4", "episodes=5",
        "trainer=cpu", "schedule.kind=linear", "time=6s", f"out={tmp_path}", f"data.cache={tmp_path}",
    ]  # fmt: skip
    run = start(compose(small))
    assert run.training and run.result
    assert run.settings.steps == run.settings.schedule.get("steps") == run.training.steps < 6
