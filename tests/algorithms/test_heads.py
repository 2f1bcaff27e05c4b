"""R2-D2, MetaOptNet, FEAT and Meta-Baseline alike: any way, unequal shots, several episodes at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.feat import FEAT
from fsl_cli.algorithms.metaoptnet import MetaOptNet
from fsl_cli.algorithms.protonet import ProtoNet
from fsl_cli.algorithms.r2d2 import R2D2
from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.episodes import Episodes, Examples

pytestmark = pytest.mark.usefixtures("float64")


class Flat(Backbone):
    """The pixels themselves as features, so that logits can be computed by hand."""

    norm = "none"

    def __init__(self, d: int) -> None:
        super().__init__()
        self.out_features = d

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        return x.flatten(2)


D = 6
HEADS = {
    "r2d2": lambda: R2D2(Flat(D), scale=2.0, penalty=0.1),
    "svm": lambda: MetaOptNet(Flat(D)),
    "ridge": lambda: MetaOptNet(Flat(D), head="ridge", penalty=0.5),
    "feat": lambda: FEAT(Flat(D), temperature=2.0),
    "metabaseline": lambda: ProtoNet(Flat(D), distance="cosine"),
}


def built(name: str) -> Algorithm:
    torch.manual_seed(0)
    return HEADS[name]()


def episode(shots: list[int], seed: int = 0, queries: int = 2) -> Episodes:
    """One episode with these shots of each class, in random order."""
    dice = torch.Generator().manual_seed(seed)
    centres = torch.randn(len(shots), D, generator=dice)

    def examples(counts: list[int]) -> Examples:
        y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        y = y[torch.randperm(len(y), generator=dice)]
        return Examples((centres[y] + 0.5 * torch.randn(len(y), D, generator=dice)).unsqueeze(0), y.unsqueeze(0))

    index = torch.tensor([seed])
    return Episodes(examples(shots), examples([queries] * len(shots)), torch.arange(len(shots)).unsqueeze(0), index)


def side_by_side(some: list[Episodes]) -> Episodes:
    support, query = (
        Examples(*(torch.cat(parts) for parts in zip(*sets, strict=True)))
        for sets in [[each[i] for each in some] for i in range(2)]
    )
    return Episodes(
        support, query, torch.cat([each.classes for each in some]), torch.cat([each.index for each in some])
    )


@pytest.mark.parametrize("name", HEADS)
def test_episodes_of_unequal_shots_side_by_side_are_as_alone(name: str) -> None:
    """In training too, where FEAT drops something of each."""
    some = [episode([1, 4, 2], 1), episode([3, 3, 1], 2)]
    both, algorithm = side_by_side(some), built(name)
    alone = torch.cat([algorithm.adapt(each.support)(each.query.x) for each in some])
    torch.testing.assert_close(algorithm.adapt(both.support)(both.query.x), alone, rtol=1e-6, atol=1e-9)
    mean = torch.stack([algorithm.train().loss(each) for each in some]).mean()
    torch.testing.assert_close(algorithm.loss(both), mean, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("shots", [[1, 1], [5, 5, 5], [1, 2, 1, 7, 1, 1, 1, 1]])
def test_any_way_and_shot_and_any_names_of_the_classes(name: str, shots: list[int]) -> None:
    some, algorithm = episode(shots), built(name).eval()
    logits = algorithm.adapt(some.support)(some.query.x)
    assert logits.shape == (1, 2 * len(shots), len(shots))
    renamed = torch.randperm(len(shots), generator=torch.Generator().manual_seed(0))
    other = algorithm.adapt(Examples(some.support.x, renamed[some.support.y]))(some.query.x)
    torch.testing.assert_close(other[..., renamed], logits, rtol=1e-6, atol=1e-9)
    assert (logits.argmax(-1) == some.query.y).double().mean() > 1.5 / len(shots)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("x", [torch.zeros(1, 6, D), torch.ones(1, 6, D)], ids=["zeros", "all alike"])
def test_a_support_set_that_tells_nothing_gives_even_logits_and_finite_gradients(name: str, x: Tensor) -> None:
    """As it comes from a dead network, or from copies of one picture."""
    algorithm, images, y = built(name), x.double().requires_grad_(), torch.arange(6).unsqueeze(0) // 2
    logits = algorithm.adapt(Examples(images, y))(torch.randn(1, 4, D))
    torch.testing.assert_close(logits, logits.mean(-1, keepdim=True).expand_as(logits), rtol=1e-6, atol=1e-6)
    logits.square().sum().backward()
    assert images.grad is not None and images.grad.isfinite().all()


def test_scores_stay_exact_in_half_precision() -> None:
    """Weights of ridge regression may be smaller than float16 can hold."""
    some = episode([3, 3, 3])
    support = Examples(some.support.x.half(), some.support.y)
    algorithm = R2D2(Flat(D), scale=1e6, penalty=1e6)
    logits = algorithm.adapt(support)(some.query.x.half())
    exact = algorithm.adapt(support._replace(x=support.x.double()))(some.query.x.half().double())
    torch.testing.assert_close(logits, exact)
