"""A loss that is no number stops the run, names step and episode, and can be looked into."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from fsl_cli.cli import run
from fsl_cli.errors import UserError

SMALL = ["data.train_classes=30", "data.val_classes=16", "data.test_classes=16", "data.size=16", "train_query=2"]
SMALL += ["query=2", "backbone.filters=4", "trainer=cpu", "episodes=3", "val_episodes=2", "val_every=2", "steps=6"]


def diverging(tmp_path: Path, *words: str) -> tuple[str, Path]:
    with pytest.raises(UserError, match="Training diverged") as caught:
        run(["train", "algo=maml", "data=glyphs", f"out={tmp_path}", *SMALL, *words])
    (folder,) = tmp_path.glob("maml-glyphs-*/*")
    return str(caught.value), folder


def test_the_message_names_step_episode_and_settings_and_the_last_checkpoint_is_good(tmp_path: Path) -> None:
    message, folder = diverging(tmp_path, "meta_batch=2", "optim=sgd", "optim.lr=1e18", "val_every=1")
    found = re.search(r"at step (\d+), in episode ([\d, ]+)", message)
    assert found
    step, episodes = int(found[1]), [int(number) for number in found[2].split(", ")]
    assert all(2 * step <= number < 2 * step + 2 for number in episodes)
    assert "optim.lr=1e+18 or algo.inner_lr=" in message
    assert f"fsl train resume={folder} replay={step}" in message
    last = folder / "checkpoints" / "last.ckpt"
    assert last.exists() == (step >= 1)
    if last.exists():
        weights = torch.load(last, weights_only=True)["state_dict"].values()
        assert all(value.isfinite().all() for value in weights)
    assert not (folder / "result.json").exists()


def test_divergence_before_the_first_validation_keeps_the_run_for_a_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message, folder = diverging(tmp_path, "meta_batch=2", "algo.inner_lr=1e38")
    assert "at step 0" in message and "No validation came first" in message
    before = sorted(path.name for path in folder.rglob("*"))
    run(["train", f"resume={folder}", "replay=0"])
    out = capsys.readouterr().out
    assert re.search(r"step 0  episode 0  loss (nan|inf)", out) and "episode 1" in out
    assert "Anomaly:" in out and "returned nan values" in out
    assert "inner_loop.py" in out or "maml.py" in out or "norm.py" in out  # where the forward pass was
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_a_step_that_is_fine_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["train", "algo=protonet", "data=glyphs", f"out={tmp_path}", *SMALL, "test=false"])
    (folder,) = tmp_path.glob("protonet-glyphs-*/*")
    run(["train", f"resume={folder}", "replay=3"])
    assert "Step 3 went through with finite numbers" in capsys.readouterr().out
