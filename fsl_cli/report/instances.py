"""Accuracy by instance of a class, or error by example, of learners that read a task as a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from fsl_cli.report.rows import Row, Section
from fsl_cli.runs.published import published_instances
from fsl_cli.stats import ordinal

SHOWN = (1, 2, 3, 4, 5, 10)  # instances, as the paper of MANN shows them


def instance_columns(rows: Sequence[Row]) -> dict[str, list[float | None]]:
    """1st, 2nd, …: for each row the mean over its seeds; None where a method has none. {} where no row has any."""
    found = [_means(row) for row in rows]
    places = [place for place in SHOWN if any(place in means for means in found)]
    return {ordinal(place): [means.get(place) for means in found] for place in places}


def by_instance(section: Section) -> dict[str, Any] | None:
    """The same for the page, beside what papers report; None where no test tells of instances."""
    columns = instance_columns(section.rows)
    if not columns:
        return None
    lines = [
        (row.name, cells) for row, *cells in zip(section.rows, *columns.values(), strict=True) if any(map(_told, cells))
    ]
    papers = [
        (f"{each.method} ({each.source})", [each.shares.get(place) for place in SHOWN[: len(columns)]])
        for each in published_instances(section.result)
    ]
    return {"heads": list(columns), "lines": lines, "papers": papers, "accuracy": section.metric == "accuracy"}


def _told(value: float | None) -> bool:
    return value is not None


def _means(row: Row) -> dict[int, float]:
    """By instance, from 1: the mean over the seeds."""
    told = [test.outcome.result.by_instance["mean"] for test in row.tests if test.outcome.result.by_instance]
    return {place: fmean(values) for place, values in enumerate(zip(*told, strict=False), 1)}
