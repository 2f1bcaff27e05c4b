"""The two sides of a comparison: a run each, or several runs that differ by their seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from fsl_cli.errors import UserError
from fsl_cli.report.gather import gather, identity, reported
from fsl_cli.report.outcome import Outcome, read
from fsl_cli.report.protocol import demand_same_episodes
from fsl_cli.report.rows import row_names
from fsl_cli.stats import Difference, compare

TYPE = "Type fsl compare RUN_A RUN_B, or fsl compare a=RUN,RUN,… b=RUN,RUN,… with a run for each seed."


class Side(NamedTuple):
    """One method: its tests by seed."""

    tests: list[Outcome]

    @property
    def first(self) -> Outcome:
        return self.tests[0]

    @property
    def shared(self) -> set[int]:
        """Episodes that all its tests have met."""
        return set.intersection(*(set(test.scores) for test in self.tests))

    def columns(self, index: Sequence[int]) -> list[list[float]]:
        """The metric of these episodes, for each seed."""
        return [[test.scores[number] for number in index] for test in self.tests]

    @property
    def mean(self) -> float:
        return fmean(test.result.mean for test in self.tests)


def sides(words: Sequence[str]) -> tuple[Side, Side]:
    """What `fsl compare` is given: RUN_A RUN_B, two folders of runs, or a=RUN,… b=RUN,…. Raises UserError."""
    named = {word.partition("=")[0]: word.partition("=")[2] for word in words if _names_a_side(word)}
    if named:
        if sorted(named) != ["a", "b"] or len(words) != 2:
            raise UserError(f"fsl compare takes a=… and b=…, once each. {TYPE}")
        a, b = _side("A", _folders(named["a"])), _side("B", _folders(named["b"]))
    elif len(words) != 2:
        raise UserError(f"fsl compare takes two runs, not {len(words)}. {TYPE}")
    else:
        a, b = _side("A", [Path(words[0]).expanduser()]), _side("B", [Path(words[1]).expanduser()])
    both = {test.folder.resolve() for test in a.tests} & {test.folder.resolve() for test in b.tests}
    if both:
        raise UserError(f"Both sides hold {min(both)}: they must be different runs or tests. {TYPE}")
    for one in (*a.tests, *b.tests):
        demand_same_episodes(a.first, one)
    return a, b


def difference(a: Side, b: Side) -> Difference:
    """The difference of two sides, on the episodes that all their tests have. Raises UserError if fewer than two."""
    index = sorted(a.shared & b.shared)
    if len(index) < 2:
        raise UserError(f"The tests share {len(index)} episodes. Test all with the same episodes=1000.")
    return compare(a.columns(index), b.columns(index))


def _names_a_side(word: str) -> bool:
    return word.partition("=")[0] in ("a", "b") and "=" in word and not Path(word).exists()


def _folders(value: str) -> list[Path]:
    """RUN,RUN,…; a folder whose own name has a comma is that folder."""
    parts = [value] if value and Path(value).expanduser().exists() else [part for part in value.split(",") if part]
    if not parts:
        raise UserError(f"Which runs? {TYPE}")
    return [Path(part).expanduser() for part in parts]


def _side(name: str, folders: Sequence[Path]) -> Side:
    places = [place for folder in folders for place in _tests(folder)]
    if len(places) == 1:
        return Side([read(places[0])])
    tests = reported(places)
    seeds = [test.outcome.result.seed for test in tests]
    methods = {identity(test.settings): test.settings for test in tests}
    if len(methods) > 1:
        words = "; ".join(row_names(list(methods.values())))
        raise UserError(f"{name} holds {len(methods)} methods: {words}. A side is one method, its runs differ by seed.")
    again = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if again:
        same = ", ".join(str(test.outcome.folder) for test in tests if test.outcome.result.seed == again[0])
        raise UserError(f"{name} holds seed {again[0]} more than once: {same}. Name a run for each seed.")
    return Side([test.outcome for test in sorted(tests, key=lambda test: test.outcome.result.seed)])


def _tests(folder: Path) -> list[Path]:
    """The test in a folder; where it holds none itself, those that the runs below it ended with."""
    if (folder / "result.json").exists() or (folder / "config.yaml").exists() or not any(folder.rglob("config.yaml")):
        return [folder]
    runs = [test.outcome.folder for test in gather([folder]).tests if test.outcome.folder == test.outcome.run.folder]
    return runs or [folder]
