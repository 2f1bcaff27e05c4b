"""A run that is written is locked: by a living process, and not by a dead one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.runs.run import Run

MADE = Path(__file__).with_name("made_by_0.1.0")
HOLD = """
import sys
from fsl_cli.runs.run import Run
with Run(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(MADE, tmp_path / "run"))
    (folder / "training.json").unlink()
    (folder / "result.json").unlink()
    return folder


def test_a_second_process_is_told_who_has_it_and_takes_over_when_that_one_dies(unfinished: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(unfinished)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout and holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"is being written by process {holder.pid} on .*, since 20") as refused:
        run(["train", f"resume={unfinished}"])
    assert len(str(refused.value).splitlines()) == 1
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    run(["train", f"resume={unfinished}"])
    assert (unfinished / "result.json").exists()
    assert not list(unfinished.glob(".*")), "nothing of the lock is left"


def test_other_processes_of_the_same_run_do_not_ask_for_it(unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run(unfinished).lock():
        monkeypatch.setenv("LOCAL_RANK", "1")
        with Run(unfinished).lock():
            pass
