"""What a run leaves behind: its folder, and the schema of what is written there.

config.yaml overrides.txt environment.json      what was asked for, and where it ran
changes.diff                                    how fsl differed from its commit, where it did
classes.json                                    which classes each split holds
checkpoints/best.ckpt checkpoints/last.ckpt     by validation; for resuming
metrics.csv curves.png                          one row a validation
training.json                                   written when training is over
tracking.json                                   the run's ids in trackers, with logger=
result.json episodes.csv                        the test; those of later `fsl test` in tests/NAME/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fsl_cli.files import write_json, write_table

UNFINISHED = "unfinished=true"  # stands among the changes of a test whose run was not trained to its end


@dataclass(frozen=True)
class Result:
    """A test, with everything that tells whether two numbers may stand in one column."""

    algorithm: str
    data: str
    images: str  # hash of the store
    split: str
    split_hash: str
    rotations: str
    part: str  # which split was tested
    way: int | list[int]  # a number, or the range that it was drawn from
    shot: int | list[int]
    query: int | str  # images a class, or all that are left of it
    episodes: int
    seed: int  # of the run: weights and training episodes
    episode_seed: int  # of the test episodes
    norm: str  # whose statistics normalised
    inference: str  # inductive | transductive
    trained_on: str  # data set
    image: dict[
        str, Any
    ]  # what the run's backbone sees: channels, size, and the mean and std that pixels are scaled by
    checkpoint: str
    step: int  # meta-iterations behind the checkpoint
    metric: str  # accuracy | mse
    mean: float  # of the metric over the episodes; an accuracy is 0..1
    interval: float  # half the width of its 95% interval
    loss: float
    seconds: float  # of the test
    training_seconds: float
    changes: list[str]  # settings of the run that were changed for this test
    version: str
    sampling: str = "uniform"  # of an episode's classes: uniform in the split | within_alphabet


class FittedTask(NamedTuple):
    """What is drawn of a regression task."""

    x: list[float]
    truth: list[float]
    support_x: list[float]
    support_y: list[float]
    after: dict[int, list[float]]  # gradient steps -> predictions at x


def write_result(folder: Path, result: Result, scores: Iterable[tuple[int, float, float]]) -> None:
    """result.json, and episodes.csv with the metric and loss of each test episode."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "episodes.csv", ["index", result.metric, "loss"], scores)
    write_json(folder / "result.json", asdict(result))
