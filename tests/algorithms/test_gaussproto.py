"""Gaussian ProtoNet by hand: weighted means, each class's own metric, and where it is ProtoNet."""

from __future__ import annotations

import pytest
import torch
from conftest import Pixels

from fsl_cli.algorithms.gaussproto import GaussProto, distances, gaussians
from fsl_cli.algorithms.protonet import ProtoNet, logits, prototypes
from fsl_cli.episodes import Examples

pytestmark = pytest.mark.usefixtures("float64")
Y = torch.tensor([[0, 1, 0, 1, 0], [1, 0, 0, 1, 0]])


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_by_hand() -> None:
    x, s = numbers(2, 5, 3), numbers(2, 5, 3, seed=1).exp()
    centres, precisions = gaussians(x, s, Y)
    queries = numbers(2, 4, 3, seed=2)
    found = distances(queries, centres, precisions)
    for task in range(2):
        for label in range(2):
            own_x, own_s = x[task][Y[task] == label], s[task][Y[task] == label]
            centre = (own_s * own_x).sum(0) / own_s.sum(0)
            torch.testing.assert_close(centres[task, label], centre)
            for number, query in enumerate(queries[task]):
                expected = (query - centre) @ torch.diag(own_s.sum(0)) @ (query - centre)
                torch.testing.assert_close(found[task, number, label], expected)


def test_equal_precisions_give_protonets_prototypes_and_its_order() -> None:
    x = numbers(2, 6, 4)
    y = torch.tensor([[0, 1, 0, 1, 2, 2]]).expand(2, -1)
    centres, precisions = gaussians(x, torch.full_like(x, 0.7), y)
    torch.testing.assert_close(centres, prototypes(x, y))
    queries = numbers(2, 5, 4, seed=3)
    torch.testing.assert_close(-distances(queries, centres, precisions), 2 * 0.7 * logits(queries, centres))


def test_an_image_of_no_precision_has_no_say() -> None:
    x, s = numbers(2, 5, 3), torch.ones(2, 5, 3)
    s[:, 0] = 0
    before = gaussians(x, s, Y)
    x[:, 0] += 100
    for one, other in zip(before, gaussians(x, s, Y), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("precision", ["radius", "diagonal"])
def test_it_starts_as_protonet_and_learns_whom_to_believe(precision: str) -> None:
    """The same answers at the start; and where an image is far off, the gradient takes from its precision."""
    backbone = Pixels(1, 2, 2)
    built = GaussProto(backbone, precision, squared=True, temperature=1.0)  # type: ignore[arg-type]
    support = Examples(numbers(1, 4, 1, 2, 2), torch.tensor([[0, 0, 1, 1]]))
    queries = numbers(1, 6, 1, 2, 2, seed=1)
    expected = ProtoNet(backbone, temperature=1.0).adapt(support)(queries) * 2 * (1 + torch.tensor(2.0).log())
    torch.testing.assert_close(built.adapt(support)(queries), expected)
    built.squared = False
    torch.testing.assert_close(built.adapt(support)(queries), -(-expected).sqrt())
    assert torch.isfinite(built.adapt(support)(support.x)).all()
    built.adapt(support)(support.x[:, :1]).sum().backward()
    slopes = built.precision.weight.grad
    assert slopes is not None and torch.isfinite(slopes).all()
