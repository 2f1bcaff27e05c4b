"""python scripts/collect.py OUTPUTS FILE.json: the results of all runs and tests below OUTPUTS, in one small file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fsl_cli.report.outcome import run_of
from fsl_cli.reproduce.recorded import Entry, entry
from fsl_cli.runs.records import Result, read
from fsl_cli.runs.run import Run


def collect(outputs: Path) -> list[Entry]:
    """Each result.json, with what was typed for its run and the run's validation curve."""
    folders = [path.parent for path in sorted(outputs.rglob(Result.FILE))]
    return [entry(Run(run_of(folder)), folder, read(folder, Result)) for folder in folders]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(collect(Path(sys.argv[1])), indent=1) + "\n")
