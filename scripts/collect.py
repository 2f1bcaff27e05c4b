"""python scripts/collect.py OUTPUTS FILE.json: the results of all runs and tests below OUTPUTS, in one small file."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def collect(outputs: Path) -> list[dict[str, object]]:
    """Each result.json, with what was typed for its run and the run's validation curve."""
    found = []
    for path in sorted(outputs.rglob("result.json")):
        run = next(folder for folder in path.parents if (folder / "config.yaml").exists())
        curve = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()[1:]]
        found.append(
            {
                **json.loads(path.read_text()),
                "typed": [w for w in (run / "overrides.txt").read_text().split("\n") if w and "=/" not in w],
                "environment": json.loads((run / "environment.json").read_text()),
                "val_accuracy_by_step": {int(row[0]): round(float(row[2]), 4) for row in curve},
            }
        )
    return found


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(collect(Path(sys.argv[1])), indent=1) + "\n")
