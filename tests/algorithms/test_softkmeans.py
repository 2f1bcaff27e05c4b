"""Semi-supervised prototypical networks: their means by hand, and what images of other classes do to them."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from conftest import Pixels

from fsl_cli.algorithms.protonet import ProtoNet, prototypes
from fsl_cli.algorithms.softkmeans import SoftKMeans
from fsl_cli.episodes import IGNORED, Episodes, Examples

pytestmark = pytest.mark.usefixtures("float64")
KNOWN = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]]]).double()  # classes 0, 1, 1
LOOSE = torch.tensor([[[0.5, 0.0], [0.5, 3.0], [9.0, 9.0]]]).double()  # the last is of neither
Y = torch.tensor([[0, 1, 1, IGNORED, IGNORED, IGNORED]])
BOTH = torch.cat([KNOWN, LOOSE], 1)
MEANS = torch.tensor([[0.0, 0.0], [1.0, 2.0]]).double()


def built(variant: Literal["soft", "cluster", "masked"] = "soft", temperature: float = 3.0) -> SoftKMeans:
    return SoftKMeans(Pixels(1, 1, 2), variant, temperature, radius=4.0)


def moved(shares: torch.Tensor) -> torch.Tensor:
    """The means of the classes' own images and of those that belong to them in these shares (3, 2)."""
    member = torch.tensor([[1.0, 0], [0, 1], [0, 1]])
    above = member.T @ KNOWN[0] + shares.T @ LOOSE[0]
    return above / (member.sum(0) + shares.sum(0))[:, None]


def test_without_unlabelled_images_it_is_the_prototypical_network() -> None:
    x, y, queries = KNOWN[:, :, None, None], Y[:, :3], BOTH[:, :, None, None]
    ours, theirs = built(), ProtoNet(Pixels(1, 1, 2), temperature=3.0)
    for variant in (ours, built("masked")):
        torch.testing.assert_close(variant.adapt(Examples(x, y))(queries), theirs.adapt(Examples(x, y))(queries))


def test_means_move_by_soft_k_means() -> None:
    shares = (-torch.cdist(LOOSE[0], MEANS).square() / 3).softmax(-1)
    support = Examples(BOTH[:, :, None, None], Y)
    centres = moved(shares)
    expected = -torch.cdist(BOTH[0], centres).square() / 3
    torch.testing.assert_close(built().adapt(support)(support.x)[0], expected)


def test_a_further_cluster_takes_up_what_is_of_no_class() -> None:
    radius, three = 4.0, torch.cat([MEANS, torch.zeros(1, 2)])
    radii = torch.tensor([1.0, 1.0, radius])
    shares = (-torch.cdist(LOOSE[0], three).square() / 3 / (2 * radii**2) - radii.log()).softmax(-1)
    assert shares[2, 2] > 0.9 > 0.5 > shares[0, 2]
    method = built("cluster")
    centres = method.refined(BOTH / 3**0.5, Y)
    torch.testing.assert_close(centres[0] * 3**0.5, moved(shares[:, :2]))


def test_a_mask_says_how_much_each_image_counts() -> None:
    """By the paper's formula, with the statistics of distances to those without labels, SciPy's."""
    from scipy import stats

    method, far = built("masked", 1.0), torch.cdist(LOOSE[0], MEANS).square()
    far = far / far.mean(0)
    assert method.thresholds is not None
    for weights in method.thresholds.parameters():
        torch.nn.init.uniform_(weights, -0.5, 0.5)
    each = torch.stack(
        [
            torch.tensor([x.min(), x.max(), x.var(), stats.skew(x), stats.kurtosis(x)], dtype=torch.float64)
            for x in far.T.numpy()
        ]
    )
    threshold, slope = method.thresholds(each).exp().T
    mask = torch.sigmoid((threshold - far) * slope)
    shares = (-torch.cdist(LOOSE[0], MEANS).square()).softmax(-1) * mask
    torch.testing.assert_close(method.refined(BOTH, Y)[0], moved(shares))
    alone = method.refined(BOTH[:, :4], Y[:, :4])  # a single one: no spread
    assert torch.isfinite(alone).all()


def test_training_teaches_the_mask_and_the_cluster_to_leave_others_out() -> None:
    """Classes in a plane, with images far above it among those without labels: the loss falls where these are left."""
    generator = torch.Generator().manual_seed(0)

    def task() -> Episodes:
        places = torch.tensor([[1.0, 0, 0], [-1, 0, 0]])
        y = torch.arange(2).repeat_interleave(20)
        x = places[y] + 0.4 * torch.randn(40, 3, generator=generator)
        others = torch.tensor([1.5, 0, 3]) + 0.4 * torch.randn(10, 3, generator=generator)
        support = torch.cat([x[[0, 20]], x[1:6], x[21:26], others])
        labels = torch.tensor([0, 1] + [IGNORED] * 20)
        query = torch.cat([x[6:20], x[26:]])
        both = (support, labels), (query, torch.arange(2).repeat_interleave(14))
        known, asked = (Examples(a[None, :, None, None], b[None]) for a, b in both)
        return Episodes(known, asked, torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, dtype=torch.long))

    tasks = [task() for _ in range(20)]

    def loss(method: SoftKMeans) -> torch.Tensor:
        return torch.stack([method.loss(each) for each in tasks]).mean()

    soft = SoftKMeans(Pixels(1, 1, 3), "soft", 1.0)
    for variant in ("cluster", "masked"):
        method = SoftKMeans(Pixels(1, 1, 3), variant, 1.0 if variant == "masked" else 0.5)  # type: ignore[arg-type]
        optimizer = torch.optim.Adam(method.parameters(), 0.02)
        before = loss(method).item()
        for _ in range(60):
            optimizer.zero_grad()
            loss(method).backward()
            optimizer.step()
        after = loss(method).item()
        assert after < before and after < loss(soft).item()


def test_the_labelled_alone_make_the_first_means() -> None:
    features = torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([[0, 1, IGNORED, 1, 0, IGNORED]] * 2)
    known = y[0] != IGNORED
    far = 1e6 * torch.ones_like(features) * (~known)[None, :, None]
    method = built("cluster", 1.0)
    torch.testing.assert_close(
        method.refined(features + far, y), prototypes(features[:, known], y[:, known]), atol=1e-3, rtol=1e-3
    )
