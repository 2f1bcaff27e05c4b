"""A test that was run, as it lies in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fsl_cli.errors import UserError, command
from fsl_cli.files import read_rows
from fsl_cli.runs import records
from fsl_cli.runs.records import Result
from fsl_cli.runs.run import Run


class Outcome(NamedTuple):
    """One test of a run."""

    folder: Path  # result.json and episodes.csv
    run: Run  # in the same folder, or two above where the test is one of `fsl test`
    result: Result
    scores: dict[int, float]  # the metric of each test episode by its number
    attacked: dict[int, float]  # accuracy under the attack that the test was asked for; {}: none


def read(folder: Path) -> Outcome:
    """The test that lies in `folder`.

    Raises UserError when there is none, or one that is damaged or of another version of fsl.
    """
    run = Run(run_of(folder))
    if not (folder / Result.FILE).exists():
        others = sorted(found.parent for found in folder.glob("tests/*/result.json"))
        advice = (
            f"There is {others[0]}"
            if others
            else f"Type {command('fsl', 'test', f'run={run}')}, or finish its training"
        )
        raise UserError(f"{folder} holds no test (result.json). {advice}.")
    result = records.read(folder, Result, f"Test it again: {command('fsl', 'test', f'run={run}')}")
    try:
        rows = list(read_rows(folder / "episodes.csv"))
        scores = {int(row["index"]): float(row[result.metric]) for row in rows}
        attacked = {int(row["index"]): float(row["attacked"]) for row in rows if result.attacked}
    except (KeyError, ValueError) as error:
        raise UserError(f"{folder / 'episodes.csv'} cannot be read ({error}). Test the run again.") from error
    if len(scores) != result.episodes:
        raise UserError(
            f"{folder / 'episodes.csv'} has {len(scores)} episodes, result.json says {result.episodes}. "
            f"Test it again: {command('fsl', 'test', f'run={run}')}"
        )
    return Outcome(folder, run, result, scores, attacked)


def run_of(folder: Path) -> Path:
    """The folder of the run that a test belongs to: what lies in RUN/tests/NAME is RUN's."""
    full = folder if folder.parent.name else folder.absolute()
    return full.parent.parent if full.parent.name == "tests" else folder
