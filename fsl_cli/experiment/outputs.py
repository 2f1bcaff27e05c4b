"""What a test leaves in its folder: result.json, episodes.csv, rows by class, and pictures."""

from __future__ import annotations

from pathlib import Path

from fsl_cli.experiment import by_class, by_instance
from fsl_cli.experiment.calibration import Judged, reliability
from fsl_cli.experiment.learner import Learner
from fsl_cli.files import write_table, writing
from fsl_cli.pictures.instances import instances_picture
from fsl_cli.pictures.reliability import reliability_picture
from fsl_cli.runs.published import published_instances
from fsl_cli.runs.records import Result, write


def write_test(destination: Path, result: Result, learner: Learner, names: dict[int, str]) -> None:
    """Write a test into its folder, with rows of the classes that recur, `names` by number.

    Raises UserError where it cannot be written.
    """
    with writing(destination, "Free some space, or copy the run to where there is some, and test again."):
        destination.mkdir(parents=True, exist_ok=True)
        write_episodes(destination / "episodes.csv", learner)
        write(destination, result)
        if names:
            by_class.write(destination, learner.tally, names)
        if result.by_instance:
            _draw_instances(destination / "instances.png", result)
        if result.logit_temperature:
            _draw_reliability(destination / "reliability.png", learner.judged, result)


def write_episodes(path: Path, learner: Learner) -> None:
    """A row an episode; of sequence learners also a column for each instance; last, where asked for, under attack."""
    more, attacked = dict(learner.by_instance), dict(learner.attacked)
    columns = [f"instance_{k + 1}" for k in range(min(map(len, more.values()), default=0))]
    rows = [[*score, *more.get(score.index, [])[: len(columns)]] for score in learner.scores]
    if attacked:
        columns = [*columns, "attacked"]
        rows = [[*row, attacked[score.index]] for row, score in zip(rows, learner.scores, strict=True)]
    write_table(path, ["index", learner.metric, "loss", *columns], rows)


def _draw_instances(path: Path, result: Result) -> None:
    """Accuracy or error by how many of a class were seen before, with the bound of the first and what papers have."""
    assert result.by_instance
    accuracy = result.metric == "accuracy"
    most = by_instance.first_at_most(result.way) if accuracy and isinstance(result.way, int) else None
    papers = {f"{each.method}, published": each.shares for each in published_instances(result)}
    instances_picture(
        path, **result.by_instance, most=most, accuracy=accuracy, best=result.best_by_instance, papers=papers
    )


def _draw_reliability(path: Path, judged: list[Judged], result: Result) -> None:
    """The reliability diagram."""
    assert result.logit_temperature and result.ece is not None and result.ece_calibrated is not None
    curves = {
        f"as they are: calibration error {result.ece:.1%}": reliability(judged),
        f"temperature {result.logit_temperature:.3g}: {result.ece_calibrated:.1%}": reliability(
            judged, result.logit_temperature
        ),
    }
    reliability_picture(path, curves)
