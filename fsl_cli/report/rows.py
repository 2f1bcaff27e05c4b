"""Tests added up: a section for each protocol, in it a row for each method, over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from fsl_cli.pictures.run_screen import protocol_line
from fsl_cli.report.gather import Reported, identity
from fsl_cli.report.protocol import protocol, typed
from fsl_cli.report.published import Published, beside
from fsl_cli.runs.records import Result
from fsl_cli.runs.wording import task_words
from fsl_cli.stats import Difference, compare, mean_interval, seeds_interval

NAMED = 4  # settings in a row's name at most


class Row(NamedTuple):
    """One method under one protocol: runs that differ in their seed alone."""

    name: str  # the algorithm, and the settings that tell it from other rows of the algorithm
    tests: list[Reported]  # by seed
    mean: float  # over seeds and episodes
    episodes_interval: float  # half the 95% interval of the mean, from the spread of the episodes
    seeds_interval: float  # and from the spread of the seeds; nan for one seed
    column: list[float]  # the metric of each episode, averaged over the seeds
    behind: Difference | None  # the section's first row less this one, episode by episode; None for the first
    best: bool  # ahead of every other row by more than the paired interval
    published: Published | None

    @property
    def settings(self) -> dict[str, Any]:
        return self.tests[0].settings

    @property
    def result(self) -> Result:
        return self.tests[0].outcome.result


class Section(NamedTuple):
    """All rows under one protocol, the best first."""

    title: str  # omniglot 5-way 1-shot
    protocol: str  # the rest of what they have in common
    metric: str
    episodes: list[int]  # their numbers, in the order of the rows' columns
    rows: list[Row]

    @property
    def result(self) -> Result:
        return self.rows[0].result


def sections(tests: Sequence[Reported]) -> list[Section]:
    """Sorted by data set, way and shot."""
    groups: dict[Any, list[Reported]] = {}
    for test in tests:
        groups.setdefault(protocol(test.outcome.result), []).append(test)
    words = [_words(group[0].outcome.result) for group in groups.values()]
    found = []
    for key, group, (title, line) in zip(groups, groups.values(), words, strict=True):
        alike = [other for other, same in zip(groups, words, strict=True) if same == (title, line) and other != key]
        apart = {
            name: value for other in alike for (name, value), that in zip(key, other, strict=True) if that[1] != value
        }
        line = ", ".join([line, *(f"{name}={typed(value)}" for name, value in apart.items())])
        found.append(Section(title, line, group[0].outcome.result.metric, *_rows(group)))
    return sorted(found, key=_order)


def _words(result: Result) -> tuple[str, str]:
    image = result.image
    size = f", {image.size} × {image.size} × {image.channels}" if result.metric == "accuracy" else ""
    return f"{result.data} {task_words(result.way, result.shot, result.metric)}", f"{protocol_line(result)}{size}"


def _order(section: Section) -> tuple[Any, ...]:
    result = section.result
    way, shot = (value if isinstance(value, list) else [value] for value in (result.way, result.shot))
    return result.data, way, shot, section.protocol


def _rows(group: Sequence[Reported]) -> tuple[list[int], list[Row]]:
    """The episodes' numbers, and a row for each settings, the best first."""
    methods: dict[Any, list[Reported]] = {}
    for test in group:
        methods.setdefault(identity(test.settings), []).append(test)
    index = sorted(set.intersection(*(set(test.outcome.scores) for test in group)))
    rows = [_row(sorted(tests, key=lambda test: test.outcome.result.seed), index) for tests in methods.values()]
    lower_is_better = group[0].outcome.result.metric == "mse"
    rows.sort(key=lambda row: row.mean if lower_is_better else -row.mean)
    first, *others = rows
    behind = [compare(first.column, other.column) for other in others]
    ahead = bool(others) and all(abs(found.mean) > found.interval for found in behind)
    names = row_names([row.settings for row in rows])
    return index, [
        row._replace(name=name, behind=found, best=ahead and row is first)
        for row, name, found in zip(rows, names, [None, *behind], strict=True)
    ]


def _row(tests: list[Reported], index: list[int]) -> Row:
    column = [fmean(test.outcome.scores[number] for test in tests) for number in index]
    mean, interval = mean_interval(column)
    seeds = [fmean(test.outcome.scores[number] for number in index) for test in tests]
    spread = seeds_interval(seeds) if len(seeds) > 1 else math.nan
    number = beside(tests[0].outcome.result, tests[0].settings)
    return Row("", tests, mean, interval, spread, column, None, False, number)


def row_names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Each row's algorithm, with the settings that tell it from the other rows of its algorithm."""
    names = []
    for settings in rows:
        own = [row for row in rows if row["algo"] == settings["algo"]]
        differing = differences(own)
        # another backbone or data set has other settings: its name says enough
        told = [key for key in differing if key.partition(".")[0] not in differing or "." not in key]
        if len(own) > 1 and len({row.get("data") for row in own}) == len(own):
            told = ["data"]
        words = [f"{key}={typed(settings[key])}" for key in told if key in settings and key != "test.unfinished"]
        more = [f"(+{len(words) - NAMED})"] if len(words) > NAMED else []
        more += ["(unfinished)"] if settings.get("test.unfinished") else []
        names.append(" ".join([settings["algo"], *words[:NAMED], *more]))
    return [name if names.count(name) == 1 else f"{name} #{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def differences(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The settings in which rows differ; of those that always agree, such as steps and schedule.steps, one."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = {key: tuple(repr(row[key]) if key in row else "" for row in rows) for key in keys}
    shortest: dict[tuple[str, ...], str] = {}
    for key in sorted(keys, key=lambda key: key.count(".")):
        shortest.setdefault(columns[key], key)
    return [key for key in keys if len(set(columns[key])) > 1 and shortest[columns[key]] == key]
