"""Nearest centroid by cosine, by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from conftest import settings
from test_heads import Flat, episode

from fsl_cli.algorithms.protonet import ProtoNet
from fsl_cli.episodes import Examples

MetaBaseline = partial(ProtoNet, distance="cosine")  # as conf/algo/metabaseline.yaml has it
pytestmark = pytest.mark.usefixtures("float64")


def test_logits_by_hand() -> None:
    """Class 0 has (1, 0) and (3, 0), class 1 (0, 5): cosines, whatever the lengths, of the means of the vectors."""
    support = Examples(torch.tensor([[[1.0, 0.0], [0.0, 5.0], [3.0, 0.0]]]), torch.tensor([[0, 1, 0]]))
    queries = torch.tensor([[[4.0, 3.0], [0.0, 0.1], [-2.0, 0.0]]])
    expected = torch.tensor([[[8.0, 6.0], [0.0, 10.0], [-10.0, 0.0]]])
    torch.testing.assert_close(MetaBaseline(Flat(2)).adapt(support)(queries), expected)


def test_the_mean_is_taken_before_the_length() -> None:
    support = Examples(torch.tensor([[[8.0, 0.0], [0.0, 2.0], [0.0, -1.0]]]), torch.tensor([[0, 0, 1]]))
    logits = MetaBaseline(Flat(2), scale=1.0).adapt(support)(torch.tensor([[[1.0, 0.0]]]))
    assert logits[0, 0, 0].item() == pytest.approx(4 / 17**0.5)


def test_the_scale_is_learned() -> None:
    algorithm, some = MetaBaseline(Flat(6)), episode([2, 2, 2])
    algorithm.loss(some).backward()
    assert algorithm.scale.item() == 10
    assert algorithm.scale.grad is not None and algorithm.scale.grad != 0


def test_the_authors_settings_come_without_being_asked_for() -> None:
    values = settings(["algo=metabaseline", "data=miniimagenet", "way=5", "shot=5"])
    assert (values.train_shot, values.train_query, values.meta_batch, values.steps) == (5, 15, 4, 4000)
    assert values.optim.values == {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.0005}
