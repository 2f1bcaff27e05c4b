"""Methods that see all queries together: their parts by hand, and where they are the nearest mean."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from conftest import Pixels

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.bdcspn import BDCSPN
from fsl_cli.algorithms.laplacianshot import LaplacianShot, neighbours
from fsl_cli.algorithms.protonet import prototypes
from fsl_cli.algorithms.ptmap import PTMAP, sinkhorn
from fsl_cli.algorithms.tim import TIM, entropy
from fsl_cli.algorithms.tpn import TPN
from fsl_cli.algorithms.tranfinetune import TransductiveFineTuning
from fsl_cli.episodes import Episodes, Examples
from fsl_cli.errors import UserError

pytestmark = pytest.mark.usefixtures("float64")
PLACES = torch.eye(3, 6)  # of three classes
FROZEN = [TIM, BDCSPN, LaplacianShot, PTMAP]
ALL = [*FROZEN, TransductiveFineTuning, TPN]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def task(labels: list[int], noise: float = 0.5, seed: int = 0) -> tuple[Examples, torch.Tensor, torch.Tensor]:
    """Support set of a shot, and queries of these labels, all in the positive corner: (1, n, 1, 1, 6)."""
    y = torch.tensor([[0, 1, 2]])
    x = PLACES + noise * numbers(3, 6, seed=seed)
    queries = PLACES[labels] + noise * numbers(len(labels), 6, seed=seed + 1)
    return Examples(x[None, :, None, None], y), queries[None, :, None, None], torch.tensor(labels)


def built(kind: type[Algorithm], **settings: object) -> Algorithm:
    torch.manual_seed(0)
    if kind is TPN:
        return kind(Pixels(1, 1, 6), **settings)  # type: ignore[call-arg]
    return kind(Pixels(1, 1, 6), train_classes=4, **settings)  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", FROZEN)
def test_no_steps_give_the_nearest_mean_and_so_does_a_single_query(kind: type[Algorithm]) -> None:
    support, queries, _ = task([0, 1, 2, 0, 1, 2, 0])
    method = built(kind)
    alone = torch.cat([method.adapt(support)(queries[:, i : i + 1]) for i in range(7)], 1)
    if kind is TIM:
        torch.testing.assert_close(built(kind, test_steps=0).adapt(support)(queries), alone)
    if kind is LaplacianShot:
        torch.testing.assert_close(built(kind, rounds=0).adapt(support)(queries), alone)
        torch.testing.assert_close(built(kind, pull=0.0).adapt(support)(queries), alone)
    means = prototypes(method.embed(support.x), support.y)
    far = torch.cdist(method.embed(queries), means)
    if kind is not PTMAP:  # which centres the support set before the distances
        assert (alone.argmax(-1) == far.argmin(-1)).all()


@pytest.mark.parametrize("kind", ALL)
def test_a_class_without_queries_is_no_trouble(kind: type[Algorithm]) -> None:
    support, queries, _ = task([0, 0, 0, 1, 1, 0])
    assert torch.isfinite(built(kind).adapt(support)(queries)).all()


@pytest.mark.parametrize("kind", [*FROZEN, TPN])  # all weights of no network is no test of fine-tuning
def test_queries_that_are_seen_together_are_told_apart_better(kind: type[Algorithm]) -> None:
    """Even queries under noise, over tasks: more are right than by the nearest mean."""
    settings: dict[type[Algorithm], dict[str, float]] = {TIM: {"lr": 0.01}, TPN: {"spread": 0.8, "neighbours": 6}}
    together = alone = 0
    for seed in range(0, 40, 2):
        support, queries, labels = task([0, 1, 2] * 10, noise=1.3, seed=seed)
        classify = built(kind, **settings.get(kind, {})).adapt(support)
        together += int((classify(queries)[0].argmax(-1) == labels).sum())
        alone += sum(int(classify(queries[:, i : i + 1]).argmax() == labels[i]) for i in range(30))
    assert together > alone


def test_entropies() -> None:
    shares = torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(entropy(shares, 2.0), 1 - shares.square().sum(-1))
    torch.testing.assert_close(entropy(shares, 1 + 1e-7), entropy(shares, 1.0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_gradient_steps_lower_the_objective_of_each_task_alone(alpha: float) -> None:
    (first, queries, _), (second, others, _) = task([0, 1, 2, 2]), task([0, 1, 1, 2], seed=5)
    method = built(TIM, alpha=alpha, lr=0.01)
    assert isinstance(method, TIM)
    both = Examples(torch.cat([first.x, second.x]), torch.cat([first.y, second.y]))
    together = method.adapt(both)(torch.cat([queries, others]))
    torch.testing.assert_close(together[:1], method.adapt(first)(queries))
    known = Examples(method.embed(first.x), first.y)
    means, q = prototypes(*known), method.embed(queries)
    moved = method._by_gradient(known, q, means)
    assert method.objective(known, q, moved) < method.objective(known, q, means)


def test_the_objective_is_the_papers() -> None:
    support, queries, _ = task([0, 1, 2, 2])
    method = built(TIM, support_weight=0.3, mean_weight=0.7, entropy_weight=0.2)
    assert isinstance(method, TIM)
    known, q = Examples(method.embed(support.x), support.y), method.embed(queries)
    weights = prototypes(*known)
    p = (-7.5 * torch.cdist(q, weights).square()).softmax(-1)[0]
    own = (-7.5 * torch.cdist(known.x, weights).square()).softmax(-1)[0]
    ce = -own[range(3), range(3)].log().mean()
    mean = p.mean(0)
    expected = 0.3 * ce + 0.7 * (mean * mean.log()).sum() - 0.2 * (p * p.log()).sum(-1).mean()
    torch.testing.assert_close(method.objective(known, q, weights)[0], expected)


def test_weights_at_rest_have_no_slope_for_the_labels_that_serve_best() -> None:
    """The closed form of the alternating solver: its rounds take the slope away, but for the labels that still move."""
    support, queries, _ = task([0, 1, 2, 2, 1])

    def slope(rounds: int) -> float:
        method = built(TIM, solver="alternating", test_steps=rounds, sharpness=5.0)
        assert isinstance(method, TIM)
        known, q = Examples(method.embed(support.x), support.y), method.embed(queries)
        weights = method._alternating(known, q, prototypes(*known)).requires_grad_()
        p = method._logits(q, weights).softmax(-1).detach() ** 1.1
        best = p / p.sum(1, keepdim=True).sqrt()
        best = best / best.sum(-1, keepdim=True)
        support_loss = -method._logits(known.x, weights).log_softmax(-1)[0, range(3), known.y[0]].mean()
        query_loss = -(best * method._logits(q, weights).log_softmax(-1)).sum(-1).mean()
        (found,) = torch.autograd.grad(0.1 / 1.1 * support_loss + query_loss, weights)
        return found.abs().max().item()

    assert slope(1000) < slope(0) / 50


def test_prototypes_are_rectified_by_hand() -> None:
    support, queries, _ = task([0, 1, 2, 1])
    method = built(BDCSPN)
    assert isinstance(method, BDCSPN)
    known, q = Examples(method.embed(support.x), support.y), method.embed(queries)
    means = prototypes(*known)
    found = method.rectified(known, q, means)[0]
    for label in range(3):
        above, below = torch.zeros(6), torch.tensor(0.0)
        for feature, own in [*zip(known.x[0], known.y[0], strict=True), *((each, None) for each in q[0])]:
            like = torch.stack([torch.cosine_similarity(feature, mean, dim=0) for mean in means[0]])
            if (like.argmax() if own is None else own) == label:
                share = (10 * like).softmax(0)[label]
                above, below = above + share * feature, below + share
        torch.testing.assert_close(found[label], above / below)


def test_neighbours_count_themselves_and_all_that_are_equally_far() -> None:
    x = torch.tensor([[[0.0], [1.0], [-1.0], [5.0]]])
    assert neighbours(x, 1)[0].tolist() == torch.eye(4).tolist()
    assert neighbours(x, 2)[0].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]
    assert neighbours(x, 9)[0].tolist() == torch.ones(4, 4).tolist()


def test_neighbours_draw_an_answer_by_hand() -> None:
    support, queries, _ = task([0, 1, 2, 1])
    method = built(LaplacianShot, rounds=1, neighbours=2, pull=0.5)
    q, means = method.embed(queries), prototypes(method.embed(support.x), support.y)
    near = -torch.cdist(q, means).square()
    expected = near + 0.5 * neighbours(q, 2) @ near.softmax(-1)
    torch.testing.assert_close(method.adapt(support)(queries), expected)


def test_sinkhorn_deals_equal_parts_to_the_classes() -> None:
    scores = 10 * numbers(2, 8, 4)
    dealt = sinkhorn(scores).exp()
    torch.testing.assert_close(dealt.sum(-1), torch.ones(2, 8))
    torch.testing.assert_close(dealt.sum(-2), torch.full((2, 4), 2.0), atol=1e-4, rtol=1e-4)
    scaled = dealt.log() - scores  # a number for each row and one for each column
    torch.testing.assert_close(scaled - scaled[:, :1] - scaled[:, :, :1] + scaled[:, :1, :1], torch.zeros(2, 8, 4))


def test_a_power_of_negative_features_is_refused() -> None:
    support, queries, _ = task([0, 1, 2])
    with pytest.raises(UserError, match="algo.power=null"):
        built(PTMAP).adapt(Examples(support.x - 2, support.y))
    assert torch.isfinite(built(PTMAP, power=None).adapt(Examples(support.x - 2, support.y))(queries)).all()


def test_the_alternating_solver_has_one_entropy() -> None:
    with pytest.raises(ValueError, match=r"algo.solver=gradient or algo.alpha=1"):
        built(TIM, solver="alternating", alpha=2.0)


@pytest.mark.parametrize("kind", ALL)
def test_the_order_of_the_queries_does_not_matter(kind: type[Algorithm]) -> None:
    support, queries, _ = task([0, 1, 2, 1])
    classify = built(kind).adapt(support)
    expected = classify(queries)
    for order in list(permutations(range(4)))[1::7]:
        torch.testing.assert_close(classify(queries[:, order]), expected[:, order])


def test_labels_spread_along_the_graph_by_hand() -> None:
    support, queries, _ = task([0, 1, 2, 1])
    method = built(TPN, neighbours=3, spread=0.7)
    assert isinstance(method, TPN)
    x = torch.cat([support.x, queries], 1)[0, :, 0, 0]
    z = x / method.scale(x).exp()
    far = torch.cdist(z, z).square() / 6
    linked = torch.zeros(7, 7)
    for i, row in enumerate(far):
        linked[i, row.argsort()[:3]] = 1
    weights = (-far / 2).exp() * ((linked + linked.T) > 0)
    total = weights.sum(0)
    links = weights / (total[:, None] * total).sqrt()
    labels = torch.cat([torch.eye(3), torch.zeros(4, 3)])
    found = labels
    for _ in range(300):  # the sum of the series whose limit is the closed form
        found = labels + 0.7 * links @ found
    torch.testing.assert_close(method.links(x[None])[0], links)
    torch.testing.assert_close(method.adapt(support)(queries)[0], found[3:])
    everything = Episodes(support, Examples(queries, torch.tensor([[0, 1, 2, 1]])), support.y, torch.zeros(1))
    expected = torch.nn.functional.cross_entropy(found, torch.tensor([0, 1, 2, 0, 1, 2, 1]))
    torch.testing.assert_close(method.loss(everything), expected)


def test_a_graph_that_passes_nothing_on_leaves_queries_without_labels() -> None:
    support, queries, _ = task([0, 1, 2, 1])
    assert not built(TPN, spread=0.0).adapt(support)(queries).any()


def test_fine_tuning_begins_at_the_means_and_makes_queries_sure() -> None:
    support, queries, _ = task([0, 1, 2, 1])
    known, asked = support.x[0, :, 0, 0], queries[0, :, 0, 0]
    weights = torch.nn.functional.normalize(known, dim=-1)  # a shot: the mean is the image
    start = built(TransductiveFineTuning, test_steps=0).adapt(support)(queries)[0]
    torch.testing.assert_close(start, asked @ weights.T)
    head = [weights.clone().requires_grad_(), torch.zeros(3, requires_grad=True)]
    optimizer = torch.optim.Adam(head, 0.01)
    for _ in range(5):
        optimizer.zero_grad()
        said = asked @ head[0].T + head[1]
        own = torch.nn.functional.cross_entropy(known @ head[0].T + head[1], support.y[0])
        (own - 0.5 * (said.softmax(-1) * said.log_softmax(-1)).sum(-1).mean()).backward()
        optimizer.step()
    method = built(TransductiveFineTuning, test_steps=5, lr=0.01, entropy_weight=0.5)
    found = method.train().adapt(support)(queries)[0]
    torch.testing.assert_close(found, (asked @ head[0].T + head[1]).detach(), atol=1e-6, rtol=1e-5)
    assert method.training and method.backbone.training
    assert entropy(found.softmax(-1), 1).mean() < entropy(start.softmax(-1), 1).mean()
