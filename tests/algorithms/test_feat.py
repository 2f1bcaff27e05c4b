"""FEAT against torch's own attention, its second loss class by class, and what is dropped in training."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import seen, settings
from test_heads import Flat, episode
from torch import Tensor, nn

from fsl_cli.algorithms.feat import FEAT, _dropout
from fsl_cli.experiment.method import learner
from fsl_cli.settings.binding import build

pytestmark = pytest.mark.usefixtures("float64")


def built(heads: int = 1, contrast: float = 0.7) -> FEAT:
    torch.manual_seed(0)
    algorithm = FEAT(Flat(6), temperature=3.0, contrast=contrast, contrast_temperature=5.0, heads=heads)
    for parameter in algorithm.parameters():  # away from the ones and zeros that norms and biases begin as
        parameter.data += 0.1 * torch.randn_like(parameter)
    return algorithm


def attend(algorithm: FEAT, x: Tensor) -> Tensor:
    """The layer on one set x (n, d), head after head, as the paper's equations 7 to 9."""
    layer, d, out = algorithm.attention, x.shape[1], []
    for head in range(layer.heads):
        rows = slice(head * d, (head + 1) * d)
        q, k, v = (x @ projection.weight[rows].T for projection in (layer.queries, layer.keys, layer.values))
        out.append((q @ k.T / math.sqrt(d)).softmax(-1) @ v)
    merged = torch.cat(out, 1) @ layer.merge.weight.T + layer.merge.bias
    return F.layer_norm(x + merged, [d], layer.norm.weight, layer.norm.bias)


def means(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([x[y == label].mean(0) for label in range(int(y.max()) + 1)])


def test_one_head_is_torchs_attention() -> None:
    algorithm, x = built().eval(), torch.randn(2, 5, 6)
    layer, trusted = algorithm.attention, nn.MultiheadAttention(6, 1, batch_first=True)
    trusted.in_proj_weight.data = torch.cat([layer.queries.weight, layer.keys.weight, layer.values.weight]).data
    trusted.in_proj_bias.data.zero_()
    trusted.out_proj.load_state_dict(layer.merge.state_dict())
    torch.testing.assert_close(layer(x), layer.norm(x + trusted(x, x, x)[0]))


@pytest.mark.parametrize("heads", [1, 3])
def test_logits_are_distances_to_adapted_means(heads: int) -> None:
    algorithm, some = built(heads).eval(), episode([1, 4, 2])
    centres = attend(algorithm, means(some.support.x[0], some.support.y[0]))
    expected = -torch.cdist(some.query.x[0], centres).square() / 3
    torch.testing.assert_close(algorithm.adapt(some.support)(some.query.x)[0], expected)


@pytest.mark.parametrize("heads", [1, 3])
def test_the_second_loss_adapts_each_class_among_itself(heads: int) -> None:
    algorithm, some = built(heads).eval(), episode([1, 4, 2])
    x, y = (torch.cat(parts, 1)[0] for parts in zip(some.support, some.query, strict=True))
    adapted = torch.stack([attend(algorithm, x[y == label]).mean(0) for label in range(3)])
    second = F.cross_entropy(-torch.cdist(x, adapted).square() / 5, y)
    first = F.cross_entropy(algorithm.adapt(some.support)(some.query.x)[0], some.query.y[0])
    torch.testing.assert_close(algorithm.loss(some), first + 0.7 * second)


def test_what_is_dropped_depends_on_the_episodes_number_alone() -> None:
    algorithm, some = built().train(), episode([2, 2, 2])
    other = some._replace(index=some.index + 1)
    assert torch.equal(algorithm.loss(some), algorithm.loss(some))
    assert not torch.equal(algorithm.loss(some), algorithm.loss(other))
    assert torch.equal(algorithm.eval().loss(some), algorithm.loss(other))


def test_dropping_keeps_the_mean() -> None:
    kept = _dropout(torch.tensor([3, 4]))(torch.ones(2, 200, 200), 0.4)
    assert set(kept.unique().tolist()) == {0.0, 1 / 0.6}
    assert kept.mean((1, 2)).tolist() == pytest.approx([1, 1], abs=0.02)
    assert not torch.equal(kept[0], kept[1])


def test_the_attention_learns_faster_than_the_backbone() -> None:
    config = settings(["algo=feat", "data=miniimagenet", "backbone.filters=4"])
    built = learner(config, seen(3, 16))
    optimizer = built.configure_optimizers()["optimizer"]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4, 1e-3])
    given = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(p) for p in given} == {id(p) for p in built.parameters()} and len(given) == len(set(map(id, given)))
    assert {id(p) for p in optimizer.param_groups[1]["params"]} == {
        id(p) for p in built.algorithm.attention.parameters()
    }


@pytest.mark.parametrize(("shot", "expected"), [(1, (64, 1, 16)), (5, (32, 0.1, 64))])
def test_the_authors_settings_come_without_being_asked_for(shot: int, expected: tuple[float, ...]) -> None:
    values = settings(["algo=feat", "data=miniimagenet", "way=5", f"shot={shot}"])
    found = tuple(values.algo.get(key) for key in ("temperature", "contrast", "contrast_temperature"))
    assert found == expected
    assert (values.optim.get("lr"), values.train_query, values.steps) == (1e-4, 15, 20000)
    assert (values.schedule.get("every"), values.schedule.get("factor")) == (2000, 0.5)
    assert build(values.backbone, channels=3, size=84).out_features == 64
