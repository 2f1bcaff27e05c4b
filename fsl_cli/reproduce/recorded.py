"""What stays of a row in results/NAME.json: each test with its protocol, what was typed, where it ran, the curve."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fsl_cli.errors import UserError, command
from fsl_cli.files import read_text, write_text, writing
from fsl_cli.reproduce.rows import Row
from fsl_cli.runs.records import Result
from fsl_cli.runs.run import Run
from fsl_cli.settings.parts import OfTrainer, asked
from fsl_cli.settings.schema import Settings
from fsl_cli.settings.values import fits

Entry = dict[str, Any]
# what is shown of each
SHOWN = {
    "test": str, "mean": float, "interval": float, "training_seconds": float, "query": int | str, "inference": str,
    "when": str, "environment": dict, "precision": str,
}  # fmt: skip
FULL = "32-true"  # the precision of a record that names none
HERE = ("out", "data.root", "data.cache", "data.download", "init", "teacher", "trust")  # words that name places


def entry(run: Run, folder: Path, result: Result) -> Entry:
    """A test in `folder`, with what was typed for its run and the run's validation curve; no path of this machine."""
    return {
        **asdict(result),
        "precision": precision(run.settings),
        "changes": _elsewhere(result.changes),
        "typed": _elsewhere(run.overrides),
        "environment": run.environment,
        "when": time.strftime("%Y-%m-%d", time.localtime((folder / Result.FILE).stat().st_mtime)),
        "val_accuracy_by_step": _curve(run, result.metric),
    }


def precision(settings: Settings) -> str:
    """That of the training: 32-true, bf16-mixed."""
    return asked(settings.trainer, OfTrainer).precision or FULL


def record(place: Path, row: Row, tests: dict[str, Entry]) -> Path:
    """Write a row's tests, by their words, to `place`/NAME.json; returns the file. Raises UserError."""
    path = place / f"{row.name}.json"
    with writing(path, "Choose another folder with results=FOLDER."):
        place.mkdir(parents=True, exist_ok=True)
        found = [{"row": row.name, "test": words, **about} for words, about in tests.items()]
        write_text(path, json.dumps(found, indent=1) + "\n")
    return path


def recorded(place: Path, row: Row) -> dict[str, Entry]:
    """The tests of a row that stand in `place`, by their words; those that are no longer among its tests are left out.

    Raises UserError where the file cannot be read.
    """
    path = place / f"{row.name}.json"
    if not path.exists():
        return {}
    again = f"Remove it, and type {command('fsl', 'reproduce', row.name)}"
    try:
        entries = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}. {again}") from error
    if isinstance(entries, list):
        entries = [{"precision": FULL, **each} if isinstance(each, dict) else each for each in entries]
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise UserError(f"{path} is damaged: it must hold a list of tests, each with {', '.join(SHOWN)}. {again}")
    known = {each["test"]: each for each in entries}
    return {test.words: known[test.words] for test in row.tests if test.words in known}


def _is_entry(about: Any) -> bool:
    return isinstance(about, dict) and all(fits(about.get(name), kind) for name, kind in SHOWN.items())


def _elsewhere(words: list[str]) -> list[str]:
    return [word for word in words if word and word.lstrip("+").partition("=")[0] not in HERE and "=/" not in word]


def _curve(run: Run, metric: str) -> dict[int, float]:
    """The metric of each validation by its step; none where nothing was trained."""
    try:
        return {int(row["step"]): round(row[f"val_{metric}"], 4) for row in run.validations}
    except (KeyError, ValueError) as error:
        raise UserError(f"{run.metrics} is damaged: {error}.") from error
