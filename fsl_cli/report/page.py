"""The report as one page that needs no network: tables to sort, curves, episodes, settings."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from fsl_cli import __version__
from fsl_cli.report.charts import Names, by_axis, learning_curves, method_names, trained
from fsl_cli.report.formats import EXPLAINED, THEIRS, number
from fsl_cli.report.gather import Gathered, Reported, identity
from fsl_cli.report.protocol import typed
from fsl_cli.report.published import MARKS, backbone_name, published
from fsl_cli.report.rows import Row, Section, differences

PLACES = ("fsl", "commit", "python", "torch", "pytorch-lightning", "platform", "gpus", "threads")


class Picture(NamedTuple):
    """A test episode to look at."""

    caption: str
    uri: str  # data:image/...
    names: list[str]  # of its classes, in the order of its columns


class Looked(NamedTuple):
    """The hardest and easiest episodes of a section, or why they cannot be shown."""

    hardest: list[Picture]
    easiest: list[Picture]
    reason: str


def page(sections: Sequence[Section], gathered: Gathered, looked: Sequence[Looked]) -> str:
    """The HTML. `looked` has the pictures of each section."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    names = method_names(gathered.tests)
    charts = {
        "Learning curves": learning_curves(gathered.tests, names),
        "Accuracy by shot": by_axis(sections, "shot", names),
        "Accuracy by way": by_axis(sections, "way", names),
    }
    environment = Environment(
        loader=PackageLoader("fsl_cli.report", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    runs = {test.outcome.run.folder.resolve(): test for test in gathered.tests}
    return environment.get_template("page.html").render(
        version=__version__,
        date=time.strftime("%Y-%m-%d %H:%M"),
        runs=len(runs),
        tests=len(gathered.tests),
        sections=[_section(section, seen) for section, seen in zip(sections, looked, strict=True)],
        charts={title: [_plain(chart) for chart in found] for title, found in charts.items()},
        methods=list(dict.fromkeys(names.values())),
        settings=_settings(list(runs.values()), names),
        untested=list(map(str, gathered.untested)),
        repeats=list(map(str, gathered.repeats)),
        explained=EXPLAINED,
        theirs=THEIRS,
        marks=MARKS,
    )


def _plain(chart: Any) -> dict[str, Any]:
    series = [
        {**one._asdict(), "points": [[round(v, 4) for v in point] for point in one.points]} for one in chart.series
    ]
    return {**chart._asdict(), "series": series}


def _section(section: Section, looked: Looked) -> dict[str, Any]:
    accuracy = section.metric == "accuracy"
    low = min(row.mean - row.episodes_interval for row in section.rows)
    high = max(row.mean + row.episodes_interval for row in section.rows)
    span = (high - low) or 1.0
    several = ["interval", "behind the first"] if len(section.rows) > 1 else []
    theirs = ["published"] if any(row.published for row in section.rows) else []
    measure = "accuracy (%)" if accuracy else "squared error"
    return {
        "title": section.title,
        "name": f"{section.title}, norm={section.result.norm}",
        "protocol": section.protocol,
        "columns": ["method", "backbone", "seeds", measure, "± episodes", "± seeds", *several, *theirs, "minutes"],
        "rows": [_row(row, accuracy, low, span) for row in section.rows],
        "papers": [each._asdict() for each in published(section.result)],
        "looked": looked,
    }


def _row(row: Row, accuracy: bool, low: float, span: float) -> dict[str, Any]:
    minutes = sum(test.outcome.result.training_seconds for test in row.tests) / len(row.tests) / 60
    behind = row.behind
    return {
        "name": row.name,
        "best": row.best,
        "backbone": backbone_name(row.settings, row.result),
        "seeds": [test.outcome.result.seed for test in row.tests],
        "mean": row.mean,
        "text": number(row.mean, accuracy),
        "episodes_interval": number(row.episodes_interval, accuracy),
        "seeds_interval": number(row.seeds_interval, accuracy),
        "bar": [
            100 * (value - low) / span
            for value in (row.mean - row.episodes_interval, row.mean, row.mean + row.episodes_interval)
        ],
        "behind": f"{number(behind.mean, accuracy)} ± {number(behind.interval, accuracy)}" if behind else "",
        "behind_value": behind.mean if behind else 0.0,
        "p": f"Wilcoxon p = {behind.p:.2g}, {behind.episodes} episodes" if behind else "",
        "published": row.published,
        "minutes": minutes,
        "folders": [str(test.outcome.folder) for test in row.tests],
    }


def _settings(runs: list[Reported], names: Names) -> dict[str, Any]:
    """Each run's settings and surroundings where runs differ, what most have, and what all have in common."""
    rows = [{**trained(run), "seed": run.outcome.result.seed, **_surroundings(run)} for run in runs]
    differing = [key for key in differences(rows) if key != "algo"]  # the method's name begins with it
    columns = [[typed(row[key]) if key in row else "" for row in rows] for key in differing]
    most = [Counter(column).most_common(1)[0] for column in columns]
    return {
        "keys": differing,
        "usual": [value if 2 * count > len(rows) else None for value, count in most],
        "runs": [
            {"folder": str(run.outcome.run), "method": names[identity(trained(run))], "cells": cells}
            for run, *cells in zip(runs, *columns, strict=True)
        ],
        "common": {key: typed(value) for key, value in rows[0].items() if all(row.get(key) == value for row in rows)},
    }


def _surroundings(run: Reported) -> dict[str, Any]:
    found = run.outcome.run.environment
    return {f"environment: {key}": found[key] for key in PLACES if key in found}
