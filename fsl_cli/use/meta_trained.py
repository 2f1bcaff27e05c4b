"""Would meta-training on one's own classes pay? A short one, beside the frozen network on the same test episodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from fsl_cli.errors import TooShort, UserError
from fsl_cli.experiment.running import start
from fsl_cli.files import read_rows
from fsl_cli.runs.run import Run
from fsl_cli.runs.wording import task_words
from fsl_cli.settings.compose import compose
from fsl_cli.stats import compare, mean_interval

EPISODES = 400


class Trained(NamedTuple):
    """Accuracies on the same episodes of classes that neither has been taught."""

    minutes: float
    task: str  # 5-way 1-shot
    trained: float
    trained_interval: float
    frozen: float
    frozen_interval: float
    ahead: float  # accuracy of the frozen network minus that of the trained one, episode by episode
    ahead_interval: float

    def lines(self) -> list[str]:
        """The result in words."""
        better = abs(self.ahead) > self.ahead_interval
        verdict = (
            "no difference that so many episodes show" if not better
            else "the frozen network is better" if self.ahead > 0
            else "meta-training pays: fsl train data=folder data.root=…, see docs/own-images.md"
        )  # fmt: skip
        return [
            f"{self.task}, on classes held out: ProtoNet trained for {self.minutes:.0f} minutes "
            f"{self.trained:.1%} ± {self.trained_interval:.1%}, the frozen network "
            f"{self.frozen:.1%} ± {self.frozen_interval:.1%}: {verdict}."
        ]


def meta_trained(root: str, seconds: float, out: Path, chosen: Sequence[str]) -> Trained:
    """Train ProtoNet on most classes of the folder, in a run below `out`, and test both on others, in so many seconds.

    Raises UserError where there are too few classes or pictures to hold some out.
    """
    data = ["data=folder", f"data.root={root}", "shot=1", f"episodes={EPISODES}", "trainer=cpu", f"out={out / 'runs'}"]
    began = time.monotonic()
    with redirect_stdout(StringIO()):  # it takes seconds, and is told below the heads
        fixed = start(compose([*data, "algo=simpleshot", "backbone=photos", *chosen, "steps=0"]))
    reached = fixed.result
    assert reached  # as it was tested
    task = [f"way={reached.way}", f"query={reached.query}"]
    words = [*data, *task, "algo=protonet", "val_episodes=60", f"time={seconds:g}s"]
    try:
        run = start(compose(words), began=began)
    except TooShort as error:
        raise UserError(
            f"time={seconds:g}s: too short for training and a test of {EPISODES} episodes. Type time={error.enough}."
        ) from error
    ours, theirs = (_accuracies(each) for each in (run, fixed))
    ahead = compare([theirs], [ours])
    minutes = (run.training.seconds if run.training else seconds) / 60
    numbers = (*mean_interval(ours), *mean_interval(theirs), ahead.mean, ahead.interval)
    return Trained(minutes, task_words(reached.way, reached.shot, reached.metric), *numbers)


def _accuracies(run: Run) -> list[float]:
    return [float(row["accuracy"]) for row in read_rows(run.folder / "episodes.csv")]
