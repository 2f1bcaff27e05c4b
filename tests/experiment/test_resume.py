"""A run that was killed or stopped at any moment ends as one that never was, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from fsl_cli.errors import Interrupted

pytestmark = [pytest.mark.slow, pytest.mark.alone]  # signals that must arrive before the end

CONTEXT = get_context("forkserver")  # forks of a process that has imported torch once: a kill costs no new import
CONTEXT.set_forkserver_preload(["pytorch_lightning", "fsl_cli.commands.train", "fsl_cli.experiment.training"])
KILLS = 10  # for each algorithm
SMALL = [
    "data.train_classes=40", "data.val_classes=10", "data.test_classes=10", "train_way=5", "train_query=2", "query=2",
    "meta_batch=2",
    "backbone.filters=8", "steps=34", "val_every=8", "patience=3", "val_episodes=6", "episodes=8", "trainer=cpu",
]  # fmt: skip


def fsl(words: list[str]) -> None:
    from fsl_cli.cli import run

    torch.set_num_threads(1)
    try:
        run(words)
    except Interrupted as stopped:
        os._exit(stopped.code)


def fsl_stopped_at(words: list[str], step: int) -> None:
    """As if Ctrl-C was pressed during meta-iteration `step`."""
    from fsl_cli.experiment.stopping import StopOnSignal

    def asked(self: StopOnSignal, trainer: Any) -> bool:
        if trainer.global_step == step:
            self._receive(signal.SIGINT, None)
        return trainer.global_step == step

    StopOnSignal._asked = asked  # type: ignore[method-assign]
    fsl(words)


def started(words: list[str], step: int | None = None) -> Any:
    target, more = (fsl, ()) if step is None else (fsl_stopped_at, (step,))
    process = CONTEXT.Process(target=target, args=(words, *more))
    process.start()
    return process


def finished(words: list[str]) -> None:
    process = started(words)
    process.join(120)
    assert process.exitcode == 0


def new_run(algo: str, out: Path) -> list[str]:
    return ["train", f"algo={algo}", f"out={out}", *SMALL]


def folder(out: Path) -> Path | None:
    """The run below `out`, once there is enough of it to resume."""
    configs = list(out.glob("*/*/config.yaml"))
    return configs[0].parent if configs else None


def content(run: Path) -> dict[str, Any]:
    """All that must not depend on how often a run was stopped."""
    text = {name: (run / name).read_text() for name in ("metrics.csv", "episodes.csv", "config.yaml")}
    for name in ("best", "last"):
        saved = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        text[name] = {key: saved[key] for key in ("global_step", "state_dict", "optimizer_states", "lr_schedulers")}
    text["config.yaml"] = text["config.yaml"].replace(str(run.parents[1]), "OUT")
    return text


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.fixture(scope="module", params=["protonet", "maml"])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict, float]:
    """An algorithm, what its uninterrupted run leaves, and how long that takes once the data set is drawn."""
    finished(new_run(request.param, tmp_path_factory.mktemp("warm")))
    out = tmp_path_factory.mktemp("reference")
    begun = time.monotonic()
    finished(new_run(request.param, out))
    return request.param, content(folder(out)), time.monotonic() - begun


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_killed_run_resumes_to_the_same_bits(reference: tuple[str, dict, float], seed: int, tmp_path: Path) -> None:
    algo, expected, seconds = reference
    process = started(new_run(algo, tmp_path))
    process.join(random.Random(f"{algo}{seed}").uniform(0.1, 1.0) * seconds)
    process.kill()
    process.join()
    run = folder(tmp_path)
    finished(["train", f"resume={run}"] if run else new_run(algo, tmp_path))
    assert same(content(folder(tmp_path)), expected)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_within_an_interval_and_resumes_to_the_same_bits(
    reference: tuple[str, dict, float], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    algo, expected, _ = reference
    process = started(new_run(algo, tmp_path))
    while not list(tmp_path.glob("*/*/checkpoints/last.ckpt")) and process.is_alive():
        process.join(0.02)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code
    run = folder(tmp_path)
    assert 8 <= torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] < 34
    finished(["train", f"resume={run}"])
    assert same(content(run), expected)


@pytest.mark.parametrize("step", [3, 8, 9, 32, 34])  # validations are at 8, 16, 24, 32 and 34
def test_ctrl_c_at_a_validation_does_not_skip_it(reference: tuple[str, dict, float], step: int, tmp_path: Path) -> None:
    algo, expected, _ = reference
    process = started(new_run(algo, tmp_path), step)
    process.join(60)
    assert process.exitcode == 130
    finished(["train", f"resume={folder(tmp_path)}"])
    assert same(content(folder(tmp_path)), expected)


def test_the_comparison_notices_a_single_bit(reference: tuple[str, dict, float]) -> None:
    _, expected, _ = reference
    weights = expected["last"]["state_dict"]
    name = next(iter(weights))
    other = weights[name].clone()
    other.view(-1)[0] = torch.nextafter(other.view(-1)[0], torch.tensor(9.0))
    assert not same({**expected, "last": {**expected["last"], "state_dict": {**weights, name: other}}}, expected)
