"""What a method reached on each of several data sets, beside the mean of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from fsl_cli.report.rows import Row
from fsl_cli.runs.wording import MEASURES


def data_set_columns(rows: Sequence[Row]) -> dict[str, list[float]]:
    """A column for each data set, a mean over the seeds for each row; {} where the protocol is of one data set."""
    found: dict[str, list[float]] = {}
    for name in rows[0].result.data_sets or {}:
        unit = MEASURES[rows[0].result.metric].partition(" ")[2]
        found[f"{name} {unit}".rstrip()] = [
            fmean((test.outcome.result.data_sets or {})[name]["mean"] for test in row.tests) for row in rows
        ]
    return found
