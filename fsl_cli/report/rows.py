"""Tests added up: a section for each protocol, in it a row for each method, over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from fsl_cli.errors import typed
from fsl_cli.report.gather import Reported, identity
from fsl_cli.report.protocol import protocol
from fsl_cli.runs.jobs import Dotted
from fsl_cli.runs.published import Published, beside
from fsl_cli.runs.records import Result
from fsl_cli.runs.result_lines import episodes_line, rows_words, weights_words
from fsl_cli.runs.wording import task_words
from fsl_cli.stats import Difference, both_interval, compare, mean_interval, seeds_interval

NAMED = 4  # settings in a row's name at most


class Row(NamedTuple):
    """One method under one protocol: runs that differ in their seed alone."""

    name: str  # the algorithm, and the settings that tell it from other rows of the algorithm
    tests: list[Reported]  # by seed
    mean: float  # over seeds and episodes
    interval: float  # half its 95% interval, over seeds and episodes; of one seed, over the episodes alone
    episodes_interval: float  # the same from the spread of the episodes alone
    seeds_interval: float  # and of the seeds alone; nan for one seed
    met: list[int]  # the episodes that all its seeds have met
    behind: Difference | None  # the section's first row less this one, on the episodes of both; None for the first
    best: bool  # ahead of every other row by more than the interval of the difference
    published: Published | None

    @property
    def settings(self) -> Dotted:
        return self.tests[0].settings

    @property
    def result(self) -> Result:
        return self.tests[0].outcome.result

    def columns(self, index: Sequence[int]) -> list[list[float]]:
        """The metric of these episodes, for each seed."""
        return [[test.outcome.scores[number] for number in index] for test in self.tests]


class Section(NamedTuple):
    """All rows under one protocol, the best first."""

    title: str  # omniglot 5-way 1-shot
    protocol: str  # the rest of what they have in common
    metric: str
    episodes: list[int]  # the numbers of those that all rows have met
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
        titled = [dict(other)["inference"] for other, same in zip(groups, words, strict=True) if same[0] == title]
        title += f", {dict(key)['inference']}" if len(set(titled)) > 1 else ""  # what most often tells two apart
        rows = _rows(group)
        common = sorted(set.intersection(*(set(row.met) for row in rows)))
        found.append(Section(title, ", ".join([line, *_alike(rows)]), group[0].outcome.result.metric, common, rows))
    return sorted(found, key=_order)


def _words(result: Result) -> tuple[str, str]:
    image = result.image
    size = {
        "images": f", {image.size} × {image.size} × {image.channels}",
        "texts": f", {image.size} characters",
        "embeddings": f", {image.channels} numbers",
    }.get(image.items if result.metric == "accuracy" else "points", "")
    return (
        f"{result.data} {task_words(result.way, result.shot, result.metric)}",
        f"{episodes_line(result)}{size}, {result.inference}{rows_words(result)}{weights_words(result)}",
    )


def _alike(rows: Sequence[Row]) -> list[str]:
    """What is not part of the protocol but the same in all rows; where rows differ, the table has a column for it."""
    episodes, norms = ({getattr(row.result, key) for row in rows} for key in ("episodes", "norm"))
    said = [f"norm={min(norms)}"] if len(norms) == 1 else []
    return [*said, f"{min(episodes)} episodes"] if len(episodes) == 1 else said


def _order(section: Section) -> tuple[Any, ...]:
    result = section.result
    way, shot = (value if isinstance(value, list) else [value] for value in (result.way, result.shot))
    return result.data, way, shot, section.protocol


def _rows(group: Sequence[Reported]) -> list[Row]:
    """A row for each settings, the best first.

    The first is marked where its difference to each other row excludes zero: all these tests at once are wrong no more
    often than one of them, 5% (an intersection of tests; the worst case is one row that is as good as the first).
    """
    methods: dict[Any, list[Reported]] = {}
    for test in group:
        methods.setdefault(identity(test.settings), []).append(test)
    rows = [_row(sorted(tests, key=lambda test: test.outcome.result.seed)) for tests in methods.values()]
    lower_is_better = group[0].outcome.result.metric != "accuracy"
    rows.sort(key=lambda row: row.mean if lower_is_better else -row.mean)
    first, *others = rows
    behind = [_difference(first, other) for other in others]
    ahead = bool(others) and all(found is not None and found.told_apart for found in behind)
    names = row_names([row.settings for row in rows])
    return [
        row._replace(name=name, behind=found, best=ahead and row is first)
        for row, name, found in zip(rows, names, [None, *behind], strict=True)
    ]


def _difference(first: Row, other: Row) -> Difference | None:
    """The difference of two rows, on the episodes that both have; None if fewer than two."""
    index = sorted(set(first.met) & set(other.met))
    return compare(first.columns(index), other.columns(index)) if len(index) > 1 else None


def _row(tests: list[Reported]) -> Row:
    index = sorted(set.intersection(*(set(test.outcome.scores) for test in tests)))
    row = Row("", tests, 0.0, math.nan, math.nan, math.nan, index, None, False, None)
    columns = row.columns(index)
    mean, interval = mean_interval([fmean(values) for values in zip(*columns, strict=True)])
    several = len(tests) > 1 and len(index) > 1
    return row._replace(
        mean=mean,
        interval=both_interval(columns) if several else interval,
        episodes_interval=interval,
        seeds_interval=seeds_interval([fmean(column) for column in columns]) if len(tests) > 1 else math.nan,
        published=beside(row.result, row.settings),
    )


def row_names(rows: Sequence[Dotted]) -> list[str]:
    """Each row's algorithm, with the settings that tell it from the other rows of its algorithm."""
    names = []
    for settings in rows:
        own = [row for row in rows if row.algo == settings.algo]
        differing = differences(own)
        # another backbone or data set has other settings: its name says enough
        told = [key for key in differing if key.partition(".")[0] not in differing or "." not in key]
        if len(own) > 1 and len({row.data for row in own}) == len(own):
            told = ["data"]
        words = [f"{key}={typed(settings[key])}" for key in told if key in settings and key != "test.unfinished"]
        more = [f"(+{len(words) - NAMED})"] if len(words) > NAMED else []
        more += ["(unfinished)"] if settings.is_unfinished else []
        names.append(" ".join([settings.algo, *words[:NAMED], *more]))
    return [name if names.count(name) == 1 else f"{name} #{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def differences(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The settings in which rows differ; of those that always agree, such as steps and schedule.steps, one."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = {key: tuple(repr(row[key]) if key in row else "" for row in rows) for key in keys}
    shortest: dict[tuple[str, ...], str] = {}
    for key in sorted(keys, key=lambda key: key.count(".")):
        shortest.setdefault(columns[key], key)
    return [key for key in keys if len(set(columns[key])) > 1 and shortest[columns[key]] == key]
