"""Relation networks against pairs put on top of each other one by one, normalised as the mode says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import Pixels, settings
from test_algorithms import METRIC_NORMS, QUERY, SHOT, WAY, episodes
from torch import Tensor

from fsl_cli.algorithms.relation import RelationNet
from fsl_cli.backbones.conv4 import Conv4
from fsl_cli.episodes import Examples
from fsl_cli.settings.binding import build


def built(norm: str) -> RelationNet:
    torch.manual_seed(0)
    relation = RelationNet(Conv4(1, 16, norm, filters=8, halvings=2))  # type: ignore[arg-type]
    for parameter in relation.relation.parameters():
        torch.nn.init.normal_(parameter)
    return relation


def normalise(relation: RelationNet, number: int, x: Tensor, k: int) -> Tensor:
    """x (pairs, C, H, W), of which the first k are the support set's, as the mode says."""
    norm, mode = relation.relation.norms[number], relation.backbone.norm
    if mode == "none":
        return x
    if mode == "group":
        return F.group_norm(x, 1, norm.weight, norm.bias)
    if mode == "running" and not relation.training:
        return F.batch_norm(x, norm.mean, norm.var, norm.weight, norm.bias)
    source = x[:k] if mode == "support" else x
    mean, var = source.mean((0, 2, 3), keepdim=True), source.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)


def by_hand(relation: RelationNet, supports: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """Features of one episode, (n, d), (n,), (m, d) -> (m, way), pair by pair as the authors' code."""
    module = relation.relation
    classes = [supports[y == label].sum(0).view(module.shape) for label in range(int(y.max()) + 1)]
    images = [*supports, *queries] if relation.backbone.norm == "support" else [*queries]
    pairs = [torch.cat([one, image.view(module.shape)]) for image in images for one in classes]
    x = torch.stack(pairs)
    k = len(supports) * len(classes)
    for number, conv in enumerate((module.first, module.second)):
        x = F.max_pool2d(normalise(relation, number, F.conv2d(x, conv.weight, conv.bias, padding=1), k).relu(), 2)
    scores = module.linear[2](module.linear[0](x.flatten(1)).relu())
    return scores.view(len(images), len(classes))[-len(queries) :]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", METRIC_NORMS)
def test_scores_are_those_of_maps_on_top_of_each_other(norm: str, training: bool, float64: None) -> None:
    relation, some = built(norm).train(training), episodes()
    supports, queries = relation.backbone(some.support.x), relation.backbone(some.query.x, some.support.x)
    found = relation.adapt(some.support)(some.query.x)
    for i in range(2):
        expected = by_hand(relation, supports[i], some.support.y[i], queries[i])
        torch.testing.assert_close(found[i], expected)


def test_a_class_is_the_sum_of_its_support_images(float64: None) -> None:
    relation = built("none")
    relation.backbone = Pixels(8, 4, 4)
    x, y, queries = torch.rand(1, 4, 8, 4, 4), torch.tensor([[0, 1, 1, 1]]), torch.rand(1, 2, 8, 4, 4)
    summed = Examples(torch.stack([x[:, 0], x[:, 1:].sum(1)], 1), torch.tensor([[0, 1]]))
    torch.testing.assert_close(relation.adapt(Examples(x, y))(queries), relation.adapt(summed)(queries))


def test_the_loss_is_the_squared_error_of_the_scores_between_0_and_1(float64: None) -> None:
    relation, some = built("group"), episodes()
    scores = relation.adapt(some.support)(some.query.x).sigmoid().flatten(0, 1).tolist()
    rows = zip(scores, some.query.y.flatten().tolist(), strict=True)
    errors = [score - (number == label) for row, label in rows for number, score in enumerate(row)]
    assert relation.loss(some).item() == pytest.approx(sum(error**2 for error in errors) / (2 * WAY * QUERY * WAY))


@pytest.mark.parametrize(("data", "size", "side", "units"), [("omniglot", 28, 5, 64), ("miniimagenet", 84, 19, 576)])
def test_the_papers_sizes_come_without_being_asked_for(data: str, size: int, side: int, units: int) -> None:
    """What the fully connected layers take: 64 units on Omniglot, 64 * 3 * 3 on miniImageNet."""
    values = settings(["algo=relation", f"data={data}"])
    relation = build(values.algo, backbone=build(values.backbone, channels=1, size=size)).relation
    assert (relation.shape, relation.linear[0].weight.shape) == ((64, side, side), (8, units))
    assert (relation.first.weight.shape, relation.second.weight.shape) == ((64, 128, 3, 3), (64, 64, 3, 3))


@pytest.mark.parametrize("shape", [(8, 1, 1), (8, 2, 3), (8, 9, 9), (8, 10, 10), (8, 11, 12)])
def test_maps_of_any_size_can_be_compared(shape: tuple[int, int, int]) -> None:
    relation = RelationNet(Pixels(*shape))
    support = Examples(torch.rand(1, WAY * SHOT, *shape), torch.arange(WAY).repeat(SHOT)[None])
    assert relation.adapt(support)(torch.rand(1, 4, *shape)).shape == (1, 4, WAY)


@pytest.mark.parametrize(("way", "shot", "queries"), [(5, 1, 19), (5, 5, 15), (20, 1, 10), (20, 5, 5)])
def test_training_episodes_have_the_authors_queries(way: int, shot: int, queries: int) -> None:
    values = settings(["algo=relation", "data=omniglot", f"way={way}", f"shot={shot}"])
    assert (values.train_way, values.train_shot, values.train_query) == (way, shot, queries)
