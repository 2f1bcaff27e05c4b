"""Images without labels, from what is typed to what is reported, and a user's own in fsl predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fsl_cli import load_run
from fsl_cli.cli import run
from fsl_cli.errors import UserError
from tests.data.test_folder import paint

SMALL = (
    "data=glyphs", "data.train_classes=12", "data.val_classes=8", "data.test_classes=8", "data.size=16", "steps=2",
    "episodes=4", "val_episodes=4", "val_every=2", "query=3", "backbone.filters=4", "trainer=cpu", "train_way=5",
)  # fmt: skip


def test_from_training_to_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["train", "algo=softkmeans", *SMALL, "distractors=2", "algo.variant=masked", f"out={tmp_path / 'o'}"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "5 images without labels of each and of 2 others" in said
    assert "labels of 40% of the training images of each class" in said
    (path,) = tmp_path.glob("o/*/*/result.json")
    found = json.loads(path.read_text())
    assert (found["unlabelled"], found["distractors"], found["labelled_share"]) == (5, 2, 0.4)
    run(["test", f"run={path.parent}", "unlabelled=2", "distractors=0"])
    assert "2 images without labels of each," in " ".join(capsys.readouterr().out.replace("│", " ").split())
    for what in ("episode", "embedding"):
        run(["show", what, f"run={path.parent}"])

    dice = np.random.default_rng(0)
    for name in ("known/a/1", "known/b/2", "more/3", "more/4", "new/5", "new/6"):
        paint(tmp_path / f"{name}.png", dice.integers(0, 255, (16, 16), np.uint8))
    words = ["predict", f"run={path.parent}", f"query={tmp_path / 'new'}", f"out={tmp_path / 'p'}"]
    known = [f"support={tmp_path / 'known'}", f"unlabelled={tmp_path / 'more'}"]
    capsys.readouterr()
    run([*words, *known, f"save={tmp_path / 'kept'}", "html=true"])
    assert "knows 2 pictures of 2 classes, and 2 without labels." in capsys.readouterr().err
    first = (tmp_path / "p" / "predictions.csv").read_text()
    run(["predict", f"run={tmp_path / 'kept'}", *words[2:]])
    assert (tmp_path / "p" / "predictions.csv").read_text() == first
    run([*words, known[0]])
    assert (tmp_path / "p" / "predictions.csv").read_text() != first

    files = [tmp_path / f"{name}.png" for name in ("known/a/1", "known/b/2", "more/3", "more/4")]
    loaded = load_run(path.parent)
    shares = loaded.adapt(files, ["a", "b", None, None])([tmp_path / "new" / "5.png"])
    row = first.splitlines()[1].split(",")
    torch.testing.assert_close(shares[0], torch.tensor([float(row[2]), float(row[3])]), atol=1e-5, rtol=1e-4)


def test_who_cannot_use_them_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Type unlabelled=0, or algo=softkmeans"):
        run(["test", "algo=protonet", *SMALL, "steps=0", "unlabelled=2", f"out={tmp_path}"])
    with pytest.raises(UserError, match="Type train_unlabelled=0 labelled_share=1"):
        run(["train", "algo=softkmeans", *SMALL, "pseudo=umtra", f"out={tmp_path}"])
    with pytest.raises(UserError, match="have no labels that could be left out"):
        run(["train", "algo=maml", "data=sinusoid", "labelled_share=0.5", f"out={tmp_path}"])
    run(["test", "algo=protonet", *SMALL, "steps=0", "query=2", "labelled_share=0.4", f"out={tmp_path}"])
    (path,) = tmp_path.glob("*/*/result.json")
    paint(tmp_path / "known" / "a" / "1.png", np.zeros((16, 16), np.uint8))
    words = [f"support={tmp_path / 'known'}", f"query={tmp_path / 'known'}", f"unlabelled={tmp_path / 'known'}"]
    with pytest.raises(UserError, match="algo=protonet learns from known pictures alone"):
        run(["predict", f"run={path.parent}", *words, f"out={tmp_path / 'p'}"])
