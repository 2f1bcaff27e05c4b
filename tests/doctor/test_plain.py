"""Ours against MAML and ProtoNet written by hand without any of our code: the same loss and the same gradient."""

from __future__ import annotations

import pytest
import torch
from conftest import settings

from fsl_cli.data.tasks import Batch
from fsl_cli.doctor.plain_loop import PlainConv4, copy_weights, plain_maml, plain_protonet
from fsl_cli.experiment.assemble import assemble

DATA = ["data.train_classes=20", "data.val_classes=10", "data.test_classes=10", "train_way=5", "train_query=3"]


@pytest.mark.parametrize("halve", ["stride", "pool"])
@pytest.mark.parametrize("algo", ["maml", "protonet"])
def test_loss_and_gradient_equal_the_plain_loop(algo: str, halve: str, float64: None) -> None:
    words = {"maml": ["norm=transductive", "algo.inner_lr=0.4", "algo.inner_steps=2"], "protonet": []}[algo]
    config = settings([f"algo={algo}", f"backbone.halve={halve}", "backbone.filters=8", *words, *DATA])
    experiment = assemble(config)
    ours = experiment.learner.algorithm
    network = PlainConv4(8, halve == "stride", 5 if algo == "maml" else None)
    theirs, order = list(network.parameters()), copy_weights(ours, network)
    [episodes] = experiment.episodes.tasks.gather(Batch("train", 0, [0, 1]), torch.device("cpu"))
    loss = ours.loss(episodes)
    expected = (plain_maml(network, 0.4, 2) if algo == "maml" else plain_protonet(network))(episodes)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    gradients = torch.autograd.grad(loss, order), torch.autograd.grad(expected, theirs)
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-7, atol=1e-10)
