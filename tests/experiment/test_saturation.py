"""Training that begins far above chance says so, and a default temperature begins near it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fsl_cli.algorithms.network import prototype_head
from fsl_cli.algorithms.protonet import ProtoNet, logits, usual_temperature
from fsl_cli.backbones.conv4 import Conv4
from fsl_cli.cli import run
from fsl_cli.episodes import Episodes, Examples

WORDS = [
    "data.train_classes=20", "data.val_classes=6", "data.test_classes=6", "data.size=16", "data.drawings=6",
    "way=3", "train_way=3", "train_query=2", "query=3", "steps=6", "val_every=6", "val_episodes=2", "test=false",
    "backbone.filters=4", "trainer=cpu", "logger=[]", "calibrate=false",
]  # fmt: skip


@pytest.mark.parametrize(("temperature", "said"), [("0.001", True), ("100", False)])
def test_a_saturated_beginning_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], temperature: str, said: bool
) -> None:
    run(["train", *WORDS, f"algo.temperature={temperature}", f"out={tmp_path}"])
    out = capsys.readouterr().out
    assert ("guessing among 3 classes has 1.10" in out) == said
    assert ("Raise algo.temperature=0.001" in out) == said


@pytest.mark.parametrize("size", [28, 84])
def test_the_default_temperature_begins_near_chance_however_many_features_there_are(size: int) -> None:
    torch.manual_seed(0)
    backbone = Conv4(3, size, norm="running")
    x = torch.randn(1, 20, 3, size, size)
    y = torch.arange(5).repeat(1, 2)
    loss = ProtoNet(backbone).loss(Episodes(Examples(x[:, :10], y), Examples(x[:, 10:], y), y[:, :5], y[:, 0]))
    assert float(loss.detach()) < 8
    assert usual_temperature(backbone.out_features) == backbone.out_features / 25


def test_scaled_prototypes_are_prototypes_over_the_temperature() -> None:
    features, y = torch.randn(6, 9), torch.arange(3).repeat(2)
    head = prototype_head(features, y, 3, temperature=7.0)
    found = features @ head["weight"].T + head["bias"] - features.square().sum(1, keepdim=True) / 7
    centres = features.view(2, 3, 9).mean(0)
    torch.testing.assert_close(found, logits(features[None], centres[None])[0] / 7, atol=1e-4, rtol=1e-4)
