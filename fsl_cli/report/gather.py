"""All tests below some folders, and what each run was trained with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fsl_cli.errors import UserError, command
from fsl_cli.report.outcome import Outcome, read
from fsl_cli.report.protocol import protocol
from fsl_cli.runs.jobs import IRRELEVANT, Dotted, flat
from fsl_cli.settings.schema import Settings
from fsl_cli.settings.typed import plain_key
from fsl_cli.settings.usual import aligned

SHOWN = 5  # problems in one message
# settings that say where and when a run ran or what a test asked for, not what was learned
APART = {
    "seed", "classes", "way", "shot", "query", "query_balance", "unlabelled", "distractors", "episodes", "test", "out",
    "trust", "train_classes", "pretrained", "calibrate", *IRRELEVANT,
}  # fmt: skip
PASSED = ("checkpoints", "artifacts")  # folders without runs: artifacts are MLflow's copies of some
HARDWARE = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy")
# changes that the protocol tells, or that no accuracy depends on
OF_THE_TEST = (
    "classes", "way", "shot", "query", "query_balance", "unlabelled", "distractors", "episodes", "data", "trainer",
    "calibrate",
)  # fmt: skip


class Reported(NamedTuple):
    """A test with the settings of its run."""

    outcome: Outcome
    settings: Dotted  # by dotted names; what was changed for the test as test.NAME


class Gathered(NamedTuple):
    tests: list[Reported]
    repeats: list[Path]  # tests left out: another of the same settings, seed and protocol has more episodes or is newer
    untested: list[Path]  # runs that have no test (yet)


def gather(folders: Sequence[Path]) -> Gathered:
    """Every test at or below the folders, those of `fsl test` too.

    Raises UserError when a folder holds no run, none of the runs was tested, or a test cannot be read.
    """
    found: dict[Path, Path] = {}  # the same folder may be named twice
    untested: dict[Path, Path] = {}
    for top in folders:
        if not top.is_dir():
            raise UserError(f"{top}: there is no such folder. Type fsl report FOLDER with one that fsl train made.")
        tests, others = _look(top)
        if not tests and not others:
            raise UserError(f"{top} holds no run. Type a folder that fsl train made, or one with such folders in it.")
        found |= {path.resolve(): path for path in tests}
        untested |= {path.resolve(): path for path in others}
    if not found:
        first, *more = untested.values()
        test = command("fsl", "test", f"run={first}")
        raise UserError(
            f"None of the runs in {', '.join(map(str, folders))} was tested: {first}"
            f"{f' and {len(more)} more' if more else ''}. Type {test}, or finish its training."
        )
    return Gathered(*_newest(reported(found.values())), untested=list(untested.values()))


def _look(top: Path) -> tuple[list[Path], list[Path]]:
    """The folders with a test, and the runs without any."""
    tests, runs = [], []
    for place, below, files in os.walk(top):
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in PASSED)
        if "result.json" in files:
            tests.append(Path(place))
        if "config.yaml" in files and "overrides.txt" in files:
            runs.append(Path(place))
    return tests, [run for run in runs if not any(run == test or run in test.parents for test in tests)]


def reported(folders: Iterable[Path]) -> list[Reported]:
    """The tests in these folders, each with its run's settings. Raises UserError, of all that cannot be read."""
    problems, outcomes, runs = [], [], []
    for folder in folders:
        try:
            outcome = read(folder)
            runs.append(outcome.run.settings)
            outcomes.append(outcome)
        except UserError as error:
            problems.append(str(error))
    problems = list(dict.fromkeys(problems))  # a run's configuration is read for each of its tests
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError("\n  ".join(["These tests cannot be reported:", *problems[:SHOWN]]) + more)
    pairs = zip(outcomes, aligned(runs), strict=True)
    return [Reported(outcome, _settings(run, outcome.result.changes)) for outcome, run in pairs]


def _settings(run: Settings, changes: list[str]) -> Dotted:
    """What was learned with, by dotted names: the choice of each group in place of the class that it names."""
    choices = {key: name for key, name in run.choices.items() if key in ("algo", "data", "backbone", "optim")}
    rest = {key: value for key, value in run.plain().items() if key not in ("choices", "image", "logger")}
    named = {f"{group}._target_" for group in choices}
    settings = {key: value for key, value in flat(rest).items() if plain_key(key) not in APART | named | set(HARDWARE)}
    for key in ("init", "teacher"):
        if settings.get(key):  # another folder for each seed: ALGO-DATA-TASK is what they have in common
            settings[key] = Path(settings[key]).parent.name
    pairs = (change.split("=", 1) for change in changes)
    tested = {f"test.{key}": value for key, value in pairs if key.split(".")[0] not in OF_THE_TEST}
    return Dotted({**choices, **settings, **tested})


def _newest(tests: list[Reported]) -> tuple[list[Reported], list[Path]]:
    """One test of each settings, seed and protocol, that of the most episodes: a repeat is no seed of its own."""
    newest: dict[Any, Reported] = {}

    def order(test: Reported) -> tuple[int, bool, float]:
        result = test.outcome.result  # open=true: the same episodes, and more is known of them
        return result.episodes, result.open is not None, (test.outcome.folder / "result.json").stat().st_mtime

    for test in sorted(tests, key=order):
        result = test.outcome.result
        newest[identity(test.settings), result.seed, protocol(result)] = test
    kept = {test.outcome.folder for test in newest.values()}
    return (
        [test for test in tests if test.outcome.folder in kept],
        [test.outcome.folder for test in tests if test.outcome.folder not in kept],
    )


def identity(settings: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Settings as a key: equal for runs that differ in their seed alone."""
    return tuple(sorted((key, repr(value)) for key, value in settings.items()))
