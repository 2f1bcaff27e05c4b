"""SNAIL looks back only, and its parts are those of the paper."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Pixels
from torch import Tensor, nn

from fsl_cli.algorithms.sequence.causal import Attention, Dense
from fsl_cli.algorithms.snail import SNAIL
from fsl_cli.cli import run
from fsl_cli.episodes import Examples
from fsl_cli.errors import UserError

WAY, D = 3, 4


def built(shot: int = 2, **more: Any) -> SNAIL:
    torch.manual_seed(0)
    return SNAIL(Pixels(D, 1, 1), WAY, shot, filters=8, **more)


def task(shot: int = 2) -> tuple[Examples, Tensor]:
    torch.manual_seed(1)
    x, y = torch.rand(2, WAY * shot, D, 1, 1), torch.arange(WAY).repeat(2, shot)
    return Examples(x, y), torch.rand(2, 4, D, 1, 1)


def whole(model: SNAIL, sequence: Tensor) -> list[Tensor]:
    """The output of each layer at all positions of sequences (T, L, C), by torch's own convolution and attention."""
    found = []
    for layer in model.layers:
        if isinstance(layer, Dense):
            weight = torch.stack([layer.before.weight, layer.now.weight], -1)  # (out, in, 2)
            padded = F.pad(sequence.mT, (layer.dilation, 0))
            value, gate = F.conv1d(padded, weight, layer.now.bias, dilation=layer.dilation).chunk(2, 1)
            new = (value.tanh() * gate.sigmoid()).mT
        else:
            scores = layer.query(sequence) @ layer.key(sequence).mT / math.sqrt(layer.key.out_features)
            later = torch.ones(sequence.shape[1], sequence.shape[1], dtype=torch.bool).triu(1)
            new = scores.masked_fill(later, -math.inf).softmax(-1) @ layer.value(sequence)
        sequence = torch.cat([sequence, new], -1)
        found.append(sequence)
    return found


@pytest.mark.parametrize("first_dilation", [1, 2])
def test_a_query_is_the_last_of_a_sequence_of_its_own(first_dilation: int, float64: None) -> None:
    model, (support, x) = built(first_dilation=first_dilation), task()
    known = torch.cat([support.x.flatten(2), F.one_hot(support.y, WAY)], -1)
    expected = []
    for query in range(x.shape[1]):
        end = F.pad(x[:, query : query + 1].flatten(2), (0, WAY))
        expected.append(model.head(whole(model, torch.cat([known, end], 1))[-1][:, -1]))
    torch.testing.assert_close(model.adapt(support)(x), torch.stack(expected, 1))


def test_no_layer_sees_what_comes_later(float64: None) -> None:
    model = built()
    known = torch.rand(1, 6, D + WAY)

    def outputs(sequence: Tensor) -> Tensor:
        ends = torch.zeros(1, 1, D + WAY)
        for layer in model.layers:
            sequence, ends = layer(sequence, ends)
        return sequence.sum(-1)

    jacobian = torch.autograd.functional.jacobian(outputs, known).abs().sum((0, 2, 4))  # (6, 6): output, input
    assert torch.equal(jacobian.triu(1), torch.zeros(6, 6))
    assert (jacobian.diagonal() > 0).all()


@pytest.mark.parametrize(("first_dilation", "reached"), [(2, 3), (1, 6)])
def test_convolutions_alone_reach_even_distances_or_all(first_dilation: int, reached: int) -> None:
    layers = [layer for layer in built(first_dilation=first_dilation).layers if isinstance(layer, Dense)][:3]
    sequence = torch.rand(1, 6, D + WAY + 32, requires_grad=True)
    known, end = sequence, torch.rand(1, 1, D + WAY + 32)
    for layer in layers:
        known, end = layer(known, end)
    [gradient] = torch.autograd.grad(end.sum(), sequence)
    assert int((gradient.abs().sum(-1) > 0).sum()) == reached


def test_channels_follow_the_papers_formula() -> None:
    """5-way 1-shot on 64 features: 69, 101, 485, 613, 997, 1253 (appendix A)."""
    model = SNAIL(Pixels(64, 1, 1), 5, 1)
    first = [layer.query if isinstance(layer, Attention) else layer.now for layer in model.layers]
    inputs = [layer.in_features for layer in first if isinstance(layer, nn.Linear)]
    assert [inputs[0], inputs[1], inputs[4], inputs[5], inputs[8], model.head.in_features] == [
        69, 101, 485, 613, 997, 1253,
    ]  # fmt: skip


def test_layers_embed_images_behind_the_backbone(float64: None) -> None:
    model, plain, (support, x) = built(embed=[7, 5]), SNAIL(Pixels(5, 1, 1), WAY, 2, filters=8), task()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if "embedding" not in key})
    first, second = model.embedding[0], model.embedding[2]
    images, queries = (second(first(some.flatten(2)).relu())[..., None, None] for some in (support.x, x))
    torch.testing.assert_close(model.adapt(support)(x), plain.adapt(Examples(images, support.y))(queries))


def test_another_length_or_way_is_refused_with_those_it_takes() -> None:
    model = built()
    x = torch.rand(1, 3, D, 1, 1)
    with pytest.raises(UserError, match=r"sets of 6 examples, and this one has 3. Type a shot of 2 \(fsl pred"):
        model.adapt(Examples(x, torch.tensor([[0, 1, 2]])))
    with pytest.raises(UserError, match="labels of 3 classes, and the episodes have 2"):
        model.adapt(Examples(x, torch.tensor([[0, 1, 1]])))
    several = SNAIL(Pixels(D, 1, 1), WAY, [1, 5], filters=8)
    for shot in (1, 3, 5):
        several.adapt(task(shot)[0])
    with pytest.raises(UserError, match="of 3 to 15 examples, .* a shot of 1 to 5 "):
        several.adapt(task(6)[0])
    with pytest.raises(UserError, match="one number of classes. Type one for way and train_way, such as way=2"):
        run(["check", "algo=snail", "data=glyphs", "way=[2,5]"])


def test_what_is_offered_next_is_no_other_shot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = [f"data.{part}_classes=2" for part in ("train", "val", "test")]
    words = [
        "way=2",
        "query=1",
        "train_query=1",
        "meta_batch=1",
        "steps=1",
        "val_every=1",
        "val_episodes=2",
        "episodes=2",
    ]
    small = ["backbone.filters=4", "algo.filters=4", "calibrate=false", "trainer=cpu", f"out={tmp_path}"]
    run(["train", "algo=snail", "data=glyphs", *few, *words, *small])
    assert re.search(r"next +fsl test run=\S+ episodes=10000\n", capsys.readouterr().out)
