"""python scripts/reproduced.py: fills the tables of README.md and docs/measured.md from results/."""

from __future__ import annotations

from pathlib import Path

from fsl_cli.reproduce.recorded import recorded
from fsl_cli.reproduce.rows import rows
from fsl_cli.reproduce.table import fill_pages

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    fill_pages(ROOT, [(row, recorded(ROOT / "results", row)) for row in rows().values()])
