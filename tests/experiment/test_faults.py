"""Faults of the machine while a run is trained: a full disk, a process that is killed, machines that do not come."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.experiment import processes

pytestmark = pytest.mark.slow

SMALL = [
    "algo=protonet", "data.train_classes=30", "data.val_classes=8", "data.test_classes=8", "data.size=16", "way=3",
    "train_way=3", "train_query=2", "query=2", "meta_batch=2", "val_episodes=2", "episodes=2",
    "trainer.accelerator=cpu",
]  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(disk: Path) -> None:
    words = ["train", *SMALL, "steps=4", "val_every=2", f"out={disk}", "trainer=cpu"]
    full = rf"{disk}\S* cannot be written: No space left on device. Free some space, or type out=FOLDER\."
    with pytest.raises(UserError, match=f"{full}$"):
        run([*words, "backbone.filters=64"])  # a checkpoint has 1.4 MB
    assert not list(disk.glob("*/*")), "a run's folder is left"
    with pytest.raises(UserError, match=f"{full} To go on: fsl train resume=") as refused:
        run([*words, "backbone.filters=32"])  # the third of 0.4 MB is too much
    [folder] = disk.glob("*/*")
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    run(["train", str(refused.value).split()[-1]])
    assert (folder / "result.json").exists()


@pytest.mark.alone
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_is_named_by_those_that_are_left(tmp_path: Path, rank: int) -> None:
    words = [*SMALL, "steps=1000000", "val_every=5", f"out={tmp_path / 'out'}", "trainer=ddp", "trainer.devices=2"]
    told = tmp_path / "told.txt"
    with open(told, "w") as file:
        first = subprocess.Popen(
            [sys.executable, "-m", "fsl_cli", "train", *words], stderr=file, start_new_session=True
        )
    try:
        while not list(tmp_path.glob("out/*/*/checkpoints/last.ckpt")):
            assert first.poll() is None, told.read_text()
            time.sleep(0.1)
        [second] = map(int, Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split())
        os.kill([first.pid, second][rank], signal.SIGKILL)
        first.wait(120)
        for _ in range(600):  # a minute, in which the other may still be noticing
            if "resume=" in told.read_text():
                break
            time.sleep(0.1)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
    [line] = [line for line in told.read_text().splitlines() if line]
    who = "Process 0" if rank == 0 else rf"Process 1 \({second}, by SIGKILL\)"
    assert re.match(rf"fsl: {who} of the 2 processes of \S+ has ended\. To go on: fsl train resume=", line), line


def test_machines_that_do_not_come_are_awaited_for_a_stated_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", timedelta(seconds=3))
    with pytest.raises(UserError, match="1 other processes of this run did not all come to .* within 0.05 minutes"):
        run(["train", *SMALL, f"out={tmp_path}", "trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2"])
    assert re.search(r"Waiting at \S+:\d+ for 2 machines, up to 0.05 minutes", capsys.readouterr().err)
    assert not list(tmp_path.glob("*/*"))
