"""A method that sees all queries together never gets new pictures in pieces, and no leave-one-out temperature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fsl_cli.cli import run
from fsl_cli.use import predictor
from fsl_cli.use.from_support import calibration_of

SMALL = (
    "data=glyphs", "data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "data.size=16", "steps=0",
    "episodes=2", "query=3", "backbone.filters=8", "trainer=cpu",
)  # fmt: skip


def test_new_pictures_are_judged_together_however_many_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(["test", "algo=bdcspn", *SMALL, f"out={tmp_path}"])
    (found,) = tmp_path.glob("*/*/result.json")
    dice = np.random.default_rng(0)
    pictures = [dice.integers(0, 255, (16, 16), dtype=np.uint8) for _ in range(9)]
    loaded = predictor.load_run(found.parent)
    classify = loaded.adapt(pictures[:4], ["a", "b", "a", "b"])
    whole = classify(pictures[4:])
    monkeypatch.setattr(predictor, "BATCH", 2)
    torch.testing.assert_close(classify(pictures[4:]), whole)
    assert not torch.equal(classify(pictures[4:7]), whole[:3])
    features = loaded.embedded(loaded.pixels(pictures[:4]))
    assert calibration_of(loaded.algorithm, features, torch.tensor([0, 1, 0, 1])) is None
