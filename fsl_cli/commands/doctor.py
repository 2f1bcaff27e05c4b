"""fsl doctor: what is installed, whether it fits together, and what a bug report should say."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from fsl_cli.doctor.examination import examine, lines
from fsl_cli.errors import UserError

HELP = """Versions, devices, whether torch and torchvision fit each other, disk, caches, prepared data sets.

  fsl doctor              text to paste into a bug report
  fsl doctor --json       the same for a script

Prints, for example:
  fsl 0.2.0 (d3aaff6)
  python 3.11.7, Linux-6.1.0-x86_64-with-glibc2.36, 2 cores, 8.2 GB of memory
  ...
  1 problem:
  - torchvision does not import: RuntimeError: operator torchvision::nms does not exist. torchvision 0.28.0 is built
    for cu130, torch 2.13.0 for cpu. Type pip uninstall -y torchvision, then pip install torch==2.13.0 torchvision
    --index-url https://download.pytorch.org/whl/cpu

The exit code is 1 where there are problems."""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl doctor`; exits with 1 where there are problems. Raises UserError."""
    for word in words:
        if word != "--json":
            raise UserError(f"fsl doctor takes --json and nothing else, not '{word}'.")
    found = examine()
    print(json.dumps(found, indent=2) if words else "\n".join(lines(found)))
    if found["problems"]:
        sys.exit(1)
