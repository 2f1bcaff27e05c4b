"""The report as one page that needs no network: tables to sort, curves, episodes, settings."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from fsl_cli import __version__
from fsl_cli.errors import shown, typed
from fsl_cli.report.attacked import attacked_columns
from fsl_cli.report.charts import Chart, Names, by_axis, learning_curves, method_names, trained
from fsl_cli.report.classes import by_class
from fsl_cli.report.formats import EXPLAINED, THEIRS, number
from fsl_cli.report.gather import Gathered, Reported, identity
from fsl_cli.report.instances import by_instance
from fsl_cli.report.matrix import Matrix, matrix
from fsl_cli.report.matrix_formats import caption, cells, several_norms
from fsl_cli.report.rows import Row, Section, differences
from fsl_cli.report.transfer import EXPLAINED as ACROSS
from fsl_cli.report.transfer import table, transfers
from fsl_cli.runs.published import MARKS, backbone_name, published
from fsl_cli.runs.wording import MEASURES

PLACES = ("fsl", "commit", "python", "torch", "pytorch-lightning", "platform", "gpus", "threads")


class Picture(NamedTuple):
    """A test episode to look at."""

    caption: str
    uri: str  # data:image/...
    names: list[str]  # of its classes, in the order of its columns


class HardestAndEasiest(NamedTuple):
    """The hardest and easiest episodes of a section, or why they cannot be shown."""

    hardest: list[Picture]
    easiest: list[Picture]
    reason: str


def page(
    sections: Sequence[Section], one: Matrix | None, gathered: Gathered, looked: Sequence[HardestAndEasiest]
) -> str:
    """The HTML. `looked` has the pictures of each section; `one` is the table of all, else made where it says more."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    names = method_names(gathered.tests)
    charts = {
        "Learning curves": learning_curves(gathered.tests, names),
        "Accuracy by shot": by_axis(sections, "shot", names),
        "Accuracy by way": by_axis(sections, "way", names),
    }
    environment = Environment(
        loader=PackageLoader("fsl_cli.report", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_plain_text,
    )  # fmt: skip
    runs = {test.outcome.run.folder.resolve(): test for test in gathered.tests}
    return environment.get_template("page.html").render(
        version=__version__,
        date=time.strftime("%Y-%m-%d %H:%M"),
        runs=len(runs),
        tests=len(gathered.tests),
        sections=[_section(section, seen) for section, seen in zip(sections, looked, strict=True)],
        one=_one(one or matrix(sections)) if one or len(sections) > 1 else None,
        across=[{"title": each.title, "protocol": each.protocol, "lines": table(each)} for each in transfers(sections)],
        across_explained=ACROSS,
        charts={title: _plain(found) for title, found in charts.items()},
        methods=list(dict.fromkeys(map(shown, names.values()))),
        settings=_settings(list(runs.values()), names),
        untested=list(map(str, gathered.untested)),
        repeats=list(map(str, gathered.repeats)),
        explained=EXPLAINED,
        theirs=THEIRS,
        marks=MARKS,
    )


def _plain_text(value: Any) -> Any:
    """What the page writes between its tags: text as it is, and what is markup already."""
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _plain(charts: Sequence[Chart]) -> dict[str, Any]:
    """Charts for the page's script: what all their titles say is said once, above them."""
    parts = [chart.title.split(", ") for chart in charts]
    common = [part for part in parts[0] if all(part in other for other in parts)] if len(charts) > 1 else []
    found = []
    for chart, words in zip(charts, parts, strict=True):
        series = [
            {
                "name": shown(one.name),
                "method": shown(one.method),
                "dashed": one.dashed,
                "points": [[round(value, 4) for value in point] for point in one.points],
            }
            for one in chart.series
        ]
        title = ", ".join(word for word in words if word not in common)
        found.append({"title": shown(title), "x": chart.x, "y": chart.y, "series": series})
    return {"common": ", ".join(common), "charts": found}


def _one(found: Matrix) -> dict[str, Any]:
    """The table of all protocols."""
    return {
        "caption": caption(found),
        "norms": several_norms(found),
        "heads": [list(filter(None, head)) for head in found.heads],
        "lines": [
            {
                "name": line.name,
                "norms": line.norms,
                "cells": [
                    {"text": text, "best": row.best, "mean": row.mean}
                    if row
                    else {"text": "", "best": False, "mean": ""}
                    for row, text in zip(line.cells, own[-len(line.cells) :], strict=True)
                ],
            }
            for line, own in zip(found.lines, cells(found), strict=True)
        ],
    }


def _section(section: Section, looked: HardestAndEasiest) -> dict[str, Any]:
    accuracy = section.metric == "accuracy"
    edges = [edge for row in section.rows for edge in _edges(row)]
    low, span = min(edges), (max(edges) - min(edges)) or 1.0
    several = ["interval", "behind the first"] if len(section.rows) > 1 else []
    differing = [key for key in ("norm", "episodes") if len({getattr(row.result, key) for row in section.rows}) > 1]
    backbones = {backbone_name(row.settings, row.result) for row in section.rows}
    differing += ["backbone"] if len(backbones) > 1 else []
    seeds = ["± episodes", "± seeds"] if any(len(row.tests) > 1 for row in section.rows) else []
    under = attacked_columns(section.rows)
    theirs = ["published"] if any(row.published for row in section.rows) else []
    measure = MEASURES[section.metric]
    return {
        "title": section.title,
        "protocol": section.protocol + (f", {min(backbones)}" if len(backbones) == 1 else ""),
        "columns": ["method", *differing, "seeds", measure, "±", *seeds, *under, *several, *theirs, "minutes"],
        "left": ["norm", "backbone", "interval"],
        "rows": [
            _row(row, accuracy, low, span, {name: values[i] for name, values in under.items()})
            for i, row in enumerate(section.rows)
        ],
        "papers": [each._asdict() for each in published(section.result)],
        "classes": by_class(section),
        "instances": by_instance(section),
        "looked": looked,
    }


def _row(row: Row, accuracy: bool, low: float, span: float, under: dict[str, str]) -> dict[str, Any]:
    minutes = sum(test.outcome.result.training_seconds for test in row.tests) / len(row.tests) / 60
    behind = row.behind
    return {
        "name": row.name,
        "best": row.best,
        "seeds": [test.outcome.result.seed for test in row.tests],
        "mean": row.mean,
        "text": number(row.mean, accuracy),
        "plain": {
            "norm": row.result.norm,
            "episodes": row.result.episodes,
            "backbone": backbone_name(row.settings, row.result),
            "±": number(row.interval, accuracy),
            "± episodes": number(row.episodes_interval, accuracy),
            "± seeds": number(row.seeds_interval, accuracy),
            **under,
        },
        "bar": [100 * (value - low) / span for value in sorted((*_edges(row), row.mean))],
        "behind": f"{number(behind.mean, accuracy)} ± {number(behind.interval, accuracy)}" if behind else "",
        "behind_value": behind.mean if behind else 0.0,
        "p": f"t-test p = {behind.p:.2g}, {behind.episodes} episodes" if behind else "",
        "published": row.published,
        "minutes": minutes,
        "folders": [str(test.outcome.folder) for test in row.tests],
    }


def _edges(row: Row) -> tuple[float, float]:
    """The ends of its interval; of a single episode, itself."""
    half = 0.0 if math.isnan(row.interval) else row.interval
    return row.mean - half, row.mean + half


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
