"""Accuracy under an attack, beside the accuracy without."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from fsl_cli.report.rows import Row
from fsl_cli.runs.result_lines import attack_words
from fsl_cli.stats import both_interval, mean_interval

COLUMN = "attacked (%)"


def attacked(row: Row) -> tuple[float, float] | None:
    """The mean accuracy, 0..1, over seeds and episodes, and half its interval; None where no attack was asked for."""
    found = [test.outcome.attacked for test in row.tests]
    if not all(found):
        return None
    index = sorted(set.intersection(*map(set, found)))
    columns = [[own[number] for number in index] for own in found]
    if len(columns) > 1 and len(index) > 1:
        return fmean(map(fmean, columns)), both_interval(columns)
    return mean_interval([fmean(values) for values in zip(*columns, strict=True)])


def attacked_columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """31.52 ± 0.80 (pgd of 20 steps on the queries, strength 0.031) for each row that was attacked; {}: none was."""
    found = {COLUMN: [_cell(row) for row in rows]}
    return found if any(found[COLUMN]) else {}


def _cell(row: Row) -> str:
    found, how = attacked(row), row.result.attacked
    return f"{100 * found[0]:.2f} ± {100 * found[1]:.2f} ({attack_words(how)})" if found and how else ""
