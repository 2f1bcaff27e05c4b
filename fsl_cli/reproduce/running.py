"""Bringing a row to its end: training, going on where it stood, or a finished run taken in; then its tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fsl_cli.errors import UserError, command
from fsl_cli.experiment.another_test import another_test
from fsl_cli.experiment.running import resume, start
from fsl_cli.files import demand_writable
from fsl_cli.reproduce.recorded import Entry, entry, precision, record
from fsl_cli.reproduce.rows import Row, RowTest, rows
from fsl_cli.reproduce.state import State, demand_same, differing, remember, state
from fsl_cli.runs.records import UNFINISHED
from fsl_cli.runs.run import Run
from fsl_cli.settings.binding import demand_fit
from fsl_cli.settings.compose import compose
from fsl_cli.settings.schema import Settings
from fsl_cli.settings.words import split_word


def demand_rows(wanted: Sequence[Row], typed: Sequence[str], out: Path, results: Path) -> None:
    """Before any work: raises UserError where what is typed does not go with the rows or what is there of them."""
    for row in wanted:
        there, here = (demand_fit(compose(words).values) for words in (row.words, [*row.words, *typed]))
        if found := differing(there, here):
            raise UserError(
                f"{', '.join(found)}: makes another training of {row.name} than the published one. Type it behind "
                f"{command('fsl', 'train', *row.words)}"
            )
        if here.processes != 1:
            raise UserError("fsl reproduce trains in one process. Leave out what asks for several.")
        demand_writable(results / f"{row.name}.json", "Choose another folder with results=FOLDER.")
        _demand_same_as_there(row, here, dict(map(split_word, typed)), out, results)
    if any(word.startswith("data.root=") for word in typed) and len({row.data for row in wanted}) > 1:
        named = ", ".join(sorted({row.data for row in wanted}))
        raise UserError(f"data.root=…: of which data set? The rows take {named}. Name the rows of one at a time.")


def _demand_same_as_there(row: Row, here: Settings, typed: dict[str, str], out: Path, results: Path) -> None:
    """Raises UserError where a seed or a precision is typed and the row there has another: it would not be trained."""
    found = state(row, out, results)
    asked = {"seed": here.seed, "trainer.precision": precision(here)}
    there: list[tuple[Entry, Path]] = [(about, results / f"{row.name}.json") for about in found.tests.values()]
    if found.run:
        has = found.run.settings
        there.append(({"seed": has.seed, "precision": precision(has)}, found.run.folder))
    for about, place in there:
        known = {"seed": about.get("seed"), "trainer.precision": about["precision"]}
        for key in (key for key in asked if key in typed and asked[key] != known[key]):
            said = f"{key}={asked[key]}"
            again = command("fsl", "reproduce", row.name, said, "out=FOLDER", "results=FOLDER")
            raise UserError(f"{said}: {place} is {row.name} with {key}={known[key]}. For another beside it: {again}")


def take_in(row: Row, run: Run, out: Path) -> None:
    """Make a run that was trained elsewhere the row's. Raises UserError unless its settings are the row's."""
    demand_same(row, _settings(row), run)
    if row.init:
        if not run.settings.init:
            raise UserError(f"{run} began with no backbone, {row.name} begins with that of {row.init}.")
        demand_same(rows()[row.init], _settings(rows()[row.init]), Run(run.settings.init))
    remember(row, out, run)


def reproduce(row: Row, typed: Sequence[str], out: Path, results: Path) -> State:
    """Train the row, or go on with it, and test it; what is there already is not done again.

    Raises UserError where it does not work out, and Interrupted after Ctrl-C or SIGTERM.
    """
    found = state(row, out, results)
    if found.is_done:
        return found
    given = dict(map(split_word, typed))
    run = found.run
    if run is None:
        words = [*row.words, *_init(row, out, results), *typed, f"out={out}"]
        start(compose(words), begun=lambda new: remember(row, out, new))
    else:
        demand_same(row, _settings(row), run)  # the row may have changed since it was begun
        if not run.is_finished():
            resume(run, [], given.get("trainer", ""))
    run = state(row, out, results).run
    assert run
    record(results, row, {test.words: _tested(run, test, given) for test in row.tests})
    return state(row, out, results)


def _settings(row: Row) -> Settings:
    return demand_fit(compose(row.words).values)


def _init(row: Row, out: Path, results: Path) -> list[str]:
    """The word for the backbone that the row begins with."""
    if not row.init:
        return []
    first = state(rows()[row.init], out, results).run
    if first is None or not first.training:
        raise UserError(
            f"{row.name} begins with the backbone of {row.init}, which is not trained here. "
            f"Type {command('fsl', 'reproduce', row.init, row.name)}, or give that row its run with run=FOLDER."
        )
    return [f"init={first.folder}"]


def _tested(run: Run, test: RowTest, typed: dict[str, str]) -> Entry:
    """The test, as it lies in the run's folder, or done now."""
    if not test.words and run.result and UNFINISHED not in run.result.changes:
        return entry(run, run.folder, run.result)
    own = run.settings.data_root
    root = typed.get("data.root")
    moved = {"data.root": root} if root and str(Path(root).expanduser().resolve()) != own else {}
    result, folder, _ = another_test(run, {**dict(map(split_word, test.words.split())), **moved})
    return entry(run, folder, result)
