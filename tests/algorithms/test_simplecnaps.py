"""Simple CNAPs' distances by the paper's equations, and what they must not depend on."""

from __future__ import annotations

import pytest
import torch
from conftest import Pixels
from torch import Tensor

from fsl_cli.algorithms.protonet import ProtoNet
from fsl_cli.algorithms.simplecnaps import SimpleCNAPs, mahalanobis
from fsl_cli.episodes import Examples

pytestmark = pytest.mark.usefixtures("float64")


def covariance(x: Tensor) -> Tensor:
    """Of examples (n, d), as the paper's: over n - 1, and 0 of a single one."""
    return torch.cov(x.T) if len(x) > 1 else torch.zeros(x.shape[1], x.shape[1])


def by_hand(x: Tensor, y: Tensor, query: Tensor) -> Tensor:
    """Equations 2 and 3 for one query (d,), class by class."""
    found = []
    for label in range(int(y.max()) + 1):
        own = x[y == label]
        share = len(own) / (len(own) + 1)
        q = share * covariance(own) + (1 - share) * covariance(x) + torch.eye(x.shape[1])
        away = query - own.mean(0)
        found.append(away @ torch.linalg.inv(q) @ away)
    return torch.stack(found)


@pytest.mark.parametrize("d", [3, 20])  # fewer and more than examples
@pytest.mark.parametrize("labels", [[0, 1, 1, 0, 2, 1, 1], [2, 0, 1]])
def test_distances_are_the_papers_for_any_number_of_examples(d: int, labels: list[int]) -> None:
    torch.manual_seed(0)
    x, y, queries = 3 * torch.randn(2, len(labels), d), torch.tensor(labels).expand(2, -1), torch.randn(2, 4, d)
    found = mahalanobis(Examples(x, y))(queries)
    for task in range(2):
        for query in range(4):
            torch.testing.assert_close(found[task, query], by_hand(x[task], y[task], queries[task, query]))


def test_of_one_example_the_covariance_is_half_that_of_the_task_and_the_identity() -> None:
    torch.manual_seed(0)
    x, queries = torch.randn(1, 3, 2), torch.randn(1, 4, 2)
    inverse = torch.linalg.inv(torch.cov(x[0].T) / 2 + torch.eye(2))
    away = queries[0].unsqueeze(1) - x[0]  # (4, 3, 2)
    expected = torch.einsum("qki,ij,qkj->qk", away, inverse, away)
    torch.testing.assert_close(mahalanobis(Examples(x, torch.arange(3)[None]))(queries)[0], expected)


def test_where_features_vary_alike_in_all_directions_classes_rank_as_in_prototypical_networks() -> None:
    axes = torch.cat([torch.eye(2), -torch.eye(2)])
    x = (4 * axes.unsqueeze(1) + axes).reshape(1, 16, 2, 1, 1)  # four classes, each a cross about one end of a cross
    support = Examples(x, torch.arange(4).repeat_interleave(4)[None])
    queries = 5 * torch.randn(1, 30, 2, 1, 1)
    rank = [
        method(Pixels(2, 1, 1), temperature=1.0).adapt(support)(queries).argsort(-1)
        for method in (ProtoNet, SimpleCNAPs)
    ]
    assert torch.equal(*rank)


def test_a_rotation_of_the_features_changes_nothing() -> None:
    torch.manual_seed(0)
    x, y, queries = torch.randn(1, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2]]), torch.randn(1, 5, 4)
    turn = torch.linalg.qr(torch.randn(4, 4)).Q
    turned = mahalanobis(Examples(x @ turn + 7, y))(queries @ turn + 7)
    torch.testing.assert_close(turned, mahalanobis(Examples(x, y))(queries))


def test_float32_keeps_its_digits_where_features_are_long() -> None:
    torch.manual_seed(0)
    x, y, queries = 1000 * torch.randn(1, 6, 40), torch.tensor([[0, 0, 1, 1, 2, 2]]), 1000 * torch.randn(1, 5, 40)
    exact = mahalanobis(Examples(x, y))(queries)
    torch.testing.assert_close(mahalanobis(Examples(x.float(), y))(queries.float()).double(), exact, rtol=1e-4, atol=0)
