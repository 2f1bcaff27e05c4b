"""time=2h: what fits is worked out from a pace, with the schedule; a run keeps to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fsl_cli.errors import UserError
from fsl_cli.experiment import budget, judging, running
from fsl_cli.experiment.assemble import assemble
from fsl_cli.experiment.budget import Pace, episodes_after, evaluations, fitted
from fsl_cli.experiment.features import features_for_images
from fsl_cli.experiment.finalize import seconds
from fsl_cli.experiment.learner import Learner
from fsl_cli.experiment.trainer import one_process
from fsl_cli.settings.binding import demand_fit
from fsl_cli.settings.compose import compose
from fsl_cli.settings.parts import Part, shortened


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
    after = sum(evaluations(settings, "accuracy").values())
    assert after == settings.val_episodes + settings.episodes  # calibration and test
    now = fitted(settings, pace, left, after)
    validations = now.steps / now.val_every
    assert now.steps <= settings.steps and validations == int(validations) >= 1
    took = now.steps * pace.step + pace.episode * (validations * now.val_episodes + after)
    assert took <= left
    if now.steps < settings.steps:  # one interval more would be too much
        assert took + now.val_every * pace.step + pace.episode * now.val_episodes > left
        assert now.schedule.get("steps") == now.steps


def test_time_for_more_than_all_steps_changes_nothing(settings: Any) -> None:
    assert fitted(settings, Pace(0.1, 0.01), 10**6, 1200) == settings


def test_a_schedule_comes_earlier_as_a_whole() -> None:
    before = Part("", {"kind": "linear", "steps": 10000, "every": 2000, "table": {0: 1.0, 4000: 0.5}})
    after = shortened(before, 0.25).values
    assert after == {
        "kind": "linear",
        "steps": 2500,
        "every": 500,
        "table": {0: 1.0, 1000: 0.5},
    }


@pytest.mark.parametrize("left", [60, 5])
def test_a_time_too_short_for_the_test_says_what_fits(settings: Any, left: float) -> None:
    pace = Pace(0.1, 1.0)
    with pytest.raises(UserError, match=r"time=1h: too short. A step takes 0.1 s.* Type .*time=\d+s\.") as said:
        fitted(settings, pace, left, 1200)
    advice = dict(word.strip(",.").split("=") for word in str(said.value).partition("Type ")[2].split() if "=" in word)
    more = seconds(advice.pop("time")) - seconds("1h")
    fitted(settings, pace, left + more * (1 - budget.SHARE - budget.KEPT), 1200)
    assert bool(advice) == (left == 60)
    if advice:
        fewer = settings.having(**{key: int(value) for key, value in advice.items()})
        fitted(fewer, pace, left, sum(evaluations(fewer, "accuracy").values()))


def test_features_that_are_computed_once_or_kept_take_their_own_time(tmp_path: Path) -> None:
    small = ["data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "data.size=16", "norm=running"]
    words = [*small, "backbone.filters=4", "train_way=5", "query=2", "val_episodes=2", "episodes=400"]
    own = demand_fit(compose([*words, "trainer=cpu", f"data.cache={tmp_path}"]).values)
    experiment, pace = assemble(own), Pace(1.0, 0.5, image=0.1, known=0.05)
    images = int(experiment.data.splits["test"].turns * 6 * 20)
    calibration = 2 * 0.5  # so few episodes have fewer images than there are
    assert episodes_after(own, experiment, pace) == pytest.approx((calibration + images * 0.1 + 400 * 0.05) / 0.5)
    with features_for_images(experiment.learner, experiment.episodes, ["test"], one_process(own.trainer), tmp_path):
        pass
    assert episodes_after(own, experiment, pace) == pytest.approx((calibration + 400 * 0.05) / 0.5)


class Clock:
    """Turned by what would take time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.steps = 0.0, 0
        self.pace = self.later = Pace(1.0, 0.1)
        for module in (budget, running):
            monkeypatch.setattr(module, "time", self)
        self.slow(monkeypatch, Learner, "training_step", lambda groups, _: self.step())
        for name in ("validation_step", "test_step"):
            self.slow(monkeypatch, Learner, name, lambda groups, _: sum(len(each.index) for each in groups))
        self.slow(monkeypatch, judging, "_judged", lambda *_: 1)

    def monotonic(self) -> float:
        return self.now

    def step(self) -> float:
        self.steps += 1
        self.pace = self.later if self.steps > 12 else self.pace  # the first measure the pace
        return self.pace.step / self.pace.episode

    def slow(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, episodes: Any) -> None:
        """Calling it takes as long as so many evaluation episodes do now."""
        before = getattr(owner, name)

        def after(*given: Any) -> Any:
            count = episodes(*given[isinstance(owner, type) :])
            self.now += count * self.pace.episode
            return before(*given)

        monkeypatch.setattr(owner, name, after)


@pytest.mark.parametrize(
    ("later", "ends"),
    [(Pace(1.0, 0.1), False), (Pace(4.0, 0.1), True), pytest.param(Pace(2.0, 0.2), True, marks=pytest.mark.slow)],
    ids=str,
)
def test_a_run_keeps_to_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: Pace, ends: bool) -> None:
    clock = Clock(monkeypatch)
    clock.later = later
    small = [
        "data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "data.size=16", "train_query=2",
        "query=2", "train_way=5", "backbone.filters=4", "steps=1000", "val_every=200", "val_episodes=10",
        "episodes=20", "trainer=cpu", "schedule.kind=linear", "time=80s", "norm=support",
        f"out={tmp_path}", f"data.cache={tmp_path}",
    ]  # fmt: skip
    run = running.start(compose(small), began=0.0)
    assert run.training and run.result and run.calibration
    steps = run.settings.steps
    assert steps == run.settings.schedule.get("steps") and steps % run.settings.val_every == 0
    assert (run.training.steps < steps) == ends
    assert 60 < clock.now <= 80
