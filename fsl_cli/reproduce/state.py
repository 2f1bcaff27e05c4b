"""How far a row is on this machine: its run, which outputs/.reproduce remembers, and the tests that are recorded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fsl_cli.errors import UserError
from fsl_cli.files import make_folder, read_json, write_json, writing
from fsl_cli.reproduce.recorded import Entry, recorded
from fsl_cli.reproduce.rows import Row
from fsl_cli.runs.jobs import IRRELEVANT, MACHINE, WITHOUT_EFFECT, flat
from fsl_cli.runs.run import Run
from fsl_cli.settings.schema import Settings
from fsl_cli.settings.usual import aligned

SHOWN = 5  # differences in one message
# settings in which runs of one row may differ: places, the machine, what is recorded of each run, and what a test takes
APART = {
    *WITHOUT_EFFECT, *IRRELEVANT, *(f"trainer.{key}" for key in MACHINE), "trainer.precision", "seed", "init", "test",
}  # fmt: skip


class State(NamedTuple):
    """A row, the run that was begun or taken in for it here, and what is recorded of its tests."""

    row: Row
    run: Run | None
    tests: dict[str, Entry]  # by their words

    @property
    def is_done(self) -> bool:
        return len(self.tests) == len(self.row.tests)

    def words(self) -> str:
        """open, step 1,500 of 60,000, running, or done."""
        if self.is_done:
            return "done"
        if self.run is None:
            return "open"
        if self.run.training:
            return "trained, not tested"
        step, of = last_step(self.run), self.run.settings.steps
        return f"{'running, ' if self.run.is_locked() else ''}step {step:,} of {of:,}"


def state(row: Row, out: Path, results: Path) -> State:
    """Raises UserError where what is recorded cannot be read."""
    note = out / ".reproduce" / f"{row.name}.json"
    known = read_json(note).get("run") if note.exists() else None
    if known is not None and not isinstance(known, str):
        raise UserError(f"{note} is damaged: it must name the folder of a run. Remove it, or type run=FOLDER.")
    run = Run(known) if known else None
    return State(row, run if run and run.folder.is_dir() else None, recorded(results, row))


def remember(row: Row, out: Path, run: Run) -> None:
    """Note which run is the row's on this machine."""
    make_folder(out / ".reproduce")
    with writing(out, "Choose another folder with out=FOLDER."):
        write_json(out / ".reproduce" / f"{row.name}.json", {"run": str(run.folder.resolve())})


def last_step(run: Run) -> int:
    """The step of a run's last validation."""
    rows = run.validations
    try:
        return int(rows[-1]["step"]) if rows else 0
    except (KeyError, ValueError) as error:
        raise UserError(f"{run.metrics} is damaged: its last row has no step.") from error


def demand_same(row: Row, wanted: Settings, run: Run) -> None:
    """Raises UserError unless a run has the settings of a row, `wanted`."""
    if found := differing(wanted, run.settings):
        lines = [f"{key}: {theirs!r}, not {ours!r}" for key, (ours, theirs) in found.items()]
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        told = "\n  ".join([*lines[:SHOWN], *more])
        raise UserError(
            f"{run} is no run of {row.name}, whose settings are those of: fsl train {' '.join(row.words)}\n  {told}"
        )


def differing(a: Settings, b: Settings) -> dict[str, tuple[object, object]]:
    """The settings in which the two are no runs of one row, and their values."""
    ours, theirs = ({k: v for k, v in flat(each.plain()).items() if not _apart(k)} for each in aligned([a, b]))
    return {key: (ours.get(key), theirs.get(key)) for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)}


def _apart(key: str) -> bool:
    return key in APART or key.partition(".")[0] in APART
