"""What the page draws: learning curves, and accuracy by shot and by way, as series of points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from fsl_cli.errors import UserError
from fsl_cli.pictures.learning import Curve, Panel
from fsl_cli.report.gather import Reported, identity
from fsl_cli.report.protocol import protocol
from fsl_cli.report.rows import Row, Section, row_names
from fsl_cli.runs.jobs import Dotted
from fsl_cli.runs.result_lines import episodes_line
from fsl_cli.runs.run import Run
from fsl_cli.runs.wording import MEASURES, task_words

Point = tuple[float, float, float]  # x, y, and half the interval of y; 0: none
LOSS = "training loss"
Names = dict[Any, str]  # of each method, by the identity of its settings
NOT_METHOD = (  # typed words that do not say which method
    "seed=", "out=", "way=", "shot=", "algo=", "data=", "data.root=", "data.cache=", "init=", "teacher=", "test=",
)  # fmt: skip


class Series(NamedTuple):
    name: str
    method: str  # what gives it its colour
    dashed: bool
    points: list[Point]


class Chart(NamedTuple):
    title: str
    x: str
    y: str
    series: list[Series]


def method_names(tests: Sequence[Reported]) -> Names:
    """A name for each method: runs with the same settings but for the seed, whatever they were tested on.

    A method has one name on all data sets that it was trained on: where names are shown, the data set is told beside.
    """
    places: dict[str, dict[Any, Dotted]] = {}
    for test in tests:
        places.setdefault(trained(test).data, {})[identity(trained(test))] = trained(test)
    return {
        key: name for group in places.values() for key, name in zip(group, row_names(list(group.values())), strict=True)
    }


def trained(test: Reported) -> Dotted:
    """The settings of a run, without what was changed for a test."""
    return Dotted({key: value for key, value in test.settings.items() if not key.startswith("test.")})


def learning_curves(tests: Sequence[Reported], names: Names) -> list[Chart]:
    """Two charts for each task that runs were validated on, metric and training loss, with a line for each run."""
    charts: dict[tuple[str, str], list[Series]] = {}
    for test in {test.outcome.run.folder.resolve(): test for test in tests}.values():
        rows = _validations(test.outcome.run)
        metric, run = test.outcome.result.metric, test.outcome.run.settings
        task = f"{run.data_name} {task_words(run.way, run.shot, metric)}"
        accuracy = metric == "accuracy"
        method = names[identity(trained(test))]
        name = f"{method}, seed {test.outcome.result.seed}"
        for label, key, interval, scale in (
            ("validation accuracy (%)" if accuracy else "validation error", f"val_{metric}", "val_interval", accuracy),
            (LOSS, "train_loss", "", False),
        ):
            percent = 100 if scale else 1
            points = [(row["step"], percent * row[key], percent * row.get(interval, 0.0)) for row in rows if key in row]
            points = [point for point in points if all(map(math.isfinite, point))]
            if len(points) > 1:
                charts.setdefault((task, label), []).append(Series(name, method, False, points))
    return [Chart(task, "meta-iterations", label, series) for (task, label), series in charts.items()]


def curve_panels(tests: Sequence[Reported]) -> list[Panel]:
    """The validations of all runs, a panel for each task, to be drawn in one picture."""
    charts = [chart for chart in learning_curves(tests, method_names(tests)) if chart.y != LOSS]
    return [
        Panel(chart.title, chart.y, [Curve(one.method, [(x, y) for x, y, _ in one.points]) for one in chart.series])
        for chart in charts
    ]


def _validations(run: Run) -> list[dict[str, float]]:
    """A run's validations; nothing where they cannot be read: the page does without its curve."""
    try:
        return run.validations
    except UserError:
        return []


def by_axis(sections: Sequence[Section], axis: Literal["shot", "way"], names: Names) -> list[Chart]:
    """A chart for each protocol, over its shot (or way): a line for each method that was tested with several.

    Solid: one and the same run (or runs, one for each seed). Dashed: runs that were each trained for its own shot.
    """
    charts: dict[Any, dict[tuple[str, bool], list[tuple[Row, Point]]]] = {}
    typed = [set(_typed(row)) for section in sections for row in section.rows if _own(row)]
    common = set.intersection(*typed) if typed else set()
    for section in sections:
        value = getattr(section.result, axis)
        if not isinstance(value, int):
            continue
        rest = tuple(pair for pair in protocol(section.result) if pair[0] != axis)
        percent = 100 if section.metric == "accuracy" else 1
        for row in section.rows:
            point = (float(value), percent * row.mean, percent * row.episodes_interval)
            lines = [(_tested(row, names), False), *([(_for_each(row, common), True)] if _own(row) else [])]
            for line in lines:
                charts.setdefault(rest, {}).setdefault(line, []).append((row, point))
    return [chart for lines in charts.values() for chart in _chart(lines, axis, names)]


def _chart(lines: dict[tuple[str, bool], list[tuple[Row, Point]]], axis: str, names: Names) -> list[Chart]:
    series = []
    for (name, dashed), points in lines.items():
        trainings = {identity(trained(row.tests[0])) for row, _ in points}
        if len({point[0] for _, point in points}) > 1 and not (dashed and len(trainings) == 1):  # that one is solid
            method = names[identity(trained(points[0][0].tests[0]))]
            series.append(Series(name, method, dashed, sorted(point for _, point in points)))
    if not series:
        return []
    result = next(iter(lines.values()))[0][0].result
    other = f"{result.way}-way" if axis == "shot" else f"{result.shot}-shot"
    if result.metric != "accuracy":
        return [Chart(episodes_line(result), axis, MEASURES[result.metric], series)]
    return [Chart(f"{other}, {episodes_line(result)}", axis, "test accuracy (%)", series)]


def _tested(row: Row, names: Names) -> str:
    changed = [f"{key}={value}" for key, value in row.settings.items() if key.startswith("test.")]
    return " ".join([names[identity(trained(row.tests[0]))], *changed])


def _own(row: Row) -> bool:
    """Whether all its tests are those made at the end of training."""
    return all(test.outcome.folder == test.outcome.run.folder for test in row.tests)


def _for_each(row: Row, common: set[str]) -> str:
    """The method as it was typed, without what all have in common."""
    words = [word for word in _typed(row) if word not in common]
    return " ".join([row.settings.algo, *words, "(trained for each)"])


def _typed(row: Row) -> list[str]:
    """What was typed for its run, but for the way, shot and seed."""
    return [word for word in row.tests[0].outcome.run.overrides if not word.startswith(NOT_METHOD)]
