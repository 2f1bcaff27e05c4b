"""The published rows: rows.yaml, typed, beside the papers' numbers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fsl_cli.runs.published import Published, reported
from fsl_cli.runs.wording import task_name
from fsl_cli.settings.words import split_word


class RowTest(NamedTuple):
    """One number of a row."""

    words: str  # of fsl test; none: the run's own test
    task: str  # 5w1s
    paper: Published | None  # None: no paper has a number that was obtained so


class Row(NamedTuple):
    """A training by its recipe, and its tests."""

    name: str
    words: tuple[str, ...]  # of fsl train
    init: str | None  # the row whose backbone it begins with
    tests: list[RowTest]

    @property
    def data(self) -> str:
        return dict(map(split_word, self.words))["data"]


@cache
def rows() -> dict[str, Row]:
    """All rows by their names, in the order in which they are worth training."""
    entries = yaml.safe_load(Path(__file__).with_name("rows.yaml").read_text(encoding="utf-8"))
    return {entry["name"]: _row(**entry) for entry in entries}


def _row(name: str, train: str, tests: list[dict[str, Any]], init: str | None = None) -> Row:
    words = tuple(train.split())
    return Row(name, words, init, [_test(words, **test) for test in tests])


def _test(train: tuple[str, ...], words: str = "", paper: str | None = None, network: str | None = None) -> RowTest:
    given = dict(map(split_word, (*train, *words.split())))
    task = task_name(int(given["way"]), int(given["shot"]))
    return RowTest(words, task, reported(paper, given["data"], task, network) if paper else None)
