"""A test that was run, as it lies in its folder."""

from __future__ import annotations

import csv
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

from fsl_cli import __version__
from fsl_cli.errors import UserError
from fsl_cli.files import read_json
from fsl_cli.runs.results import Result


class Outcome(NamedTuple):
    """One test of a run."""

    folder: Path  # result.json and episodes.csv
    run: Path  # the run's folder: the same, or two above where the test is one of `fsl test`
    result: dict[str, Any]  # as results.Result
    scores: dict[int, float]  # the metric of each test episode by its number


def read(folder: Path) -> Outcome:
    """The test that lies in `folder`.

    Raises UserError when there is none, or one that is damaged or of another version of fsl.
    """
    run, path = run_of(folder), folder / "result.json"
    if not path.exists():
        others = sorted(found.parent for found in folder.glob("tests/*/result.json"))
        advice = f"There is {others[0]}" if others else f"Type fsl test run={run}, or finish its training"
        raise UserError(f"{folder} holds no test (result.json). {advice}.")
    result = _result(path, run)
    try:
        with open(folder / "episodes.csv", newline="") as file:
            scores = {int(row["index"]): float(row[result["metric"]]) for row in csv.DictReader(file)}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'episodes.csv'} cannot be read ({error}). Test the run again.") from error
    if len(scores) != result["episodes"]:
        raise UserError(
            f"{folder / 'episodes.csv'} has {len(scores)} episodes, result.json says {result['episodes']}. "
            f"Test it again: fsl test run={run}"
        )
    return Outcome(folder, run, result, scores)


def run_of(folder: Path) -> Path:
    """The run that a test belongs to: what lies in RUN/tests/NAME is RUN's."""
    full = folder if folder.parent.name else folder.absolute()
    return full.parent.parent if full.parent.name == "tests" else folder


def _result(path: Path, run: Path) -> dict[str, Any]:
    content = read_json(path)
    known = {field.name: field.default for field in fields(Result)}
    content = {**{name: value for name, value in known.items() if value is not MISSING}, **content}
    odd = [f"lacks {name}" for name in known if name not in content]
    odd += [f"has {name}, which is unknown here" for name in content if name not in known]
    if odd:
        raise UserError(
            f"{path} was not written by this version of fsl, {__version__}, but by "
            f"{content.get('version', 'an unknown one')}: it {', '.join(odd[:3])}. Test it again: fsl test run={run}"
        )
    numbers = [name for name in ("mean", "interval", "episodes", "seed") if not isinstance(content[name], int | float)]
    if numbers:
        raise UserError(f"{path} is damaged: {numbers[0]} is no number. Test it again: fsl test run={run}")
    return content
