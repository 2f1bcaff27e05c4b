"""Two processes reach the weights of one, started by `fsl train trainer=ddp`, inside a sweep."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.alone]  # two processes that wait for each other

SMALL = [
    "data.train_classes=40", "data.val_classes=10", "data.test_classes=10", "train_way=5", "train_query=2", "query=2",
    "meta_batch=4", "backbone.filters=8", "steps=10", "val_every=5", "val_episodes=7", "episodes=9",
    "trainer.precision=64-true", "trainer.accelerator=cpu",
]  # fmt: skip


def sweep(out: Path, *words: str) -> dict[str, Path]:
    """Runs MAML, ProtoNet and a method that compares tasks in one command; the folder of each."""
    several = ["-m", "algo=maml,protonet,gradagree", f"out={out}", *SMALL, *words]
    command = [sys.executable, "-m", "fsl_cli", "train", *several]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    group = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=out.parent,
        start_new_session=True,
    )  # fmt: skip
    try:
        shown, _ = group.communicate(timeout=180)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group.pid, signal.SIGKILL)  # the second process too, should the first have been stuck
    assert group.returncode == 0, shown
    return {path.parent.parent.name.split("-")[0]: path.parent for path in out.glob("*/*/config.yaml")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Path]]:
    base = tmp_path_factory.mktemp("ddp")
    one = sweep(base / "one", "trainer=cpu")
    two = sweep(base / "two", "trainer=ddp", "trainer.devices=2")
    return one, two


def test_two_machines_reach_the_weights_of_one_and_one_folder(
    runs: tuple[dict[str, Path], dict[str, Path]], tmp_path: Path
) -> None:
    """As they would be started by hand, here both on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, "-m", "fsl_cli", "train", "algo=protonet", f"out={tmp_path / 'out'}", *SMALL]
    command += ["trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2"]
    environment = {**os.environ, **address, "OMP_NUM_THREADS": "1"}
    machines = [
        subprocess.Popen(command, env={**environment, "NODE_RANK": rank}, stdout=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    try:
        shown = [machine.communicate(timeout=180)[0] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0]
    assert "test accuracy" in shown[0] and "test accuracy" not in shown[1]
    (folder,) = tmp_path.glob("out/*/*")
    one, two = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (runs[0]["protonet"], folder)
    )
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-10, atol=1e-10)


def test_two_processes_fine_tune_at_test_as_one_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fsl_cli", "train", "algo=protonet", *SMALL, "steps=2", "backbone.finetune=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for out, trainer in (("one", ["trainer=cpu"]), ("two", ["trainer=ddp", "trainer.devices=2"])):
        subprocess.run([*command, *trainer, f"out={tmp_path / out}"], check=True, env=environment, timeout=180)
    one, two = ((next(tmp_path.glob(f"{out}/*/*")) / "episodes.csv").read_text() for out in ("one", "two"))
    rows = [[line.split(",")[:2] for line in text.splitlines()] for text in (one, two)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("algo", ["maml", "protonet", "gradagree"])
def test_two_processes_train_to_the_weights_of_one(runs: tuple[dict[str, Path], dict[str, Path]], algo: str) -> None:
    one, two = (torch.load(run[algo] / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in runs)
    assert one.keys() == two.keys()
    for name in one:  # running statistics too
        torch.testing.assert_close(two[name], one[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("algo", ["maml", "protonet", "gradagree"])
def test_two_processes_score_the_same_episodes_and_only_one_writes(
    runs: tuple[dict[str, Path], dict[str, Path]], algo: str
) -> None:
    one, two = (run[algo] for run in runs)
    rows = [[line.split(",")[:2] for line in (run / "episodes.csv").read_text().splitlines()] for run in (one, two)]
    assert rows[0] == rows[1]
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())
    assert len(list(two.parent.iterdir())) == 1
