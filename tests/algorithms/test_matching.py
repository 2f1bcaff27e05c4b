"""Matching networks' probabilities by hand, and full context embeddings by the paper's equations."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import Pixels
from torch import Tensor

from fsl_cli.algorithms.by_class import log_sum_of_each_class
from fsl_cli.algorithms.matching import MatchingNet, order
from fsl_cli.episodes import Examples

D, STEPS = 6, 3


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_labels_of_the_support_are_weighted_by_the_softmax_of_cosines(scale: float) -> None:
    x = torch.tensor([[[5.0, 0], [0, 1], [0, 2]]])[..., None, None]
    classify = MatchingNet(Pixels(2, 1, 1), scale).adapt(Examples(x, torch.tensor([[1, 0, 0]])))
    e = math.exp(scale)  # of the cosine 1 with the first image; 0 with the two of class 0
    expected = torch.tensor([[[2 / (e + 2), e / (e + 2)]]])
    torch.testing.assert_close(classify(torch.tensor([[[3.0, 0]]])[..., None, None]).exp(), expected)


def test_classes_are_summed_without_overflow_and_with_the_right_gradient(float64: None) -> None:
    scores, y = 300 * torch.randn(2, 3, 6), torch.tensor([[0, 1, 2, 2, 1, 2], [2, 0, 0, 0, 1, 0]])
    columns = [[row[:, label == own].logsumexp(1) for own in range(3)] for row, label in zip(scores, y, strict=True)]
    expected = torch.stack([torch.stack(each, 1) for each in columns])
    torch.testing.assert_close(log_sum_of_each_class(scores, y, int(y.max()) + 1), expected)
    near = (scores / 300).requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: log_sum_of_each_class(scores, y, int(y.max()) + 1), near)


def in_context() -> tuple[MatchingNet, Examples, Tensor]:
    torch.manual_seed(0)
    built = MatchingNet(Pixels(D, 1, 1), context=True, processing_steps=STEPS)
    x, queries = torch.rand(2, 5, D, 1, 1), torch.rand(2, 4, D, 1, 1)
    return built, Examples(x, torch.tensor([[0, 2, 1, 2, 2], [1, 0, 2, 2, 0]])), queries


def lstm(x: Tensor, h: Tensor, c: Tensor, w_x: Tensor, w_h: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (w_x @ x + w_h @ h + bias).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def g_by_hand(built: MatchingNet, x: Tensor) -> Tensor:
    """Appendix A.2: x (n, D) in the order of reading -> g(x_i, S) = forward_i + backward_i + x_i."""
    out = x.clone()
    for way, positions in (("", range(len(x))), ("_reverse", reversed(range(len(x))))):
        weights = [getattr(built.context.g, f"{name}_l0{way}") for name in ("weight_ih", "weight_hh")]
        bias = sum(getattr(built.context.g, f"bias_{name}_l0{way}") for name in ("ih", "hh"))
        h, c = torch.zeros(D), torch.zeros(D)
        for position in positions:
            h, c = lstm(x[position], h, c, *weights, bias)
            out[position] += h
    return out


def f_by_hand(built: MatchingNet, x: Tensor, known: Tensor) -> Tensor:
    """Appendix A.1, equations 3 to 6: one query (D,), g of the support set (n, D); the state is [h, r]."""
    cell = built.context.f
    w_x, w_h = cell.weight_ih[:, :D], torch.cat([cell.weight_hh, cell.weight_ih[:, D:]], 1)
    h, c = x, torch.zeros(D)
    for _ in range(STEPS):
        r = (known @ h).softmax(0) @ known
        h, c = lstm(x, torch.cat([h, r]), c, w_x, w_h, cell.bias_ih + cell.bias_hh)
        h = h + x
    return h


def test_full_context_embeddings_follow_the_papers_equations(float64: None) -> None:
    built, support, queries = in_context()
    found = built.adapt(support)(queries)
    for x, y, some, logits in zip(support.x.flatten(2), support.y, queries.flatten(2), found, strict=True):
        reading = order(x[None, :, :, None, None])[0]
        known = g_by_hand(built, x[reading])
        for query, row in zip(some, logits, strict=True):
            f = f_by_hand(built, query, known)
            attention = torch.cosine_similarity(f[None], known).softmax(0)
            expected = [attention[y[reading] == label].sum() for label in range(3)]
            torch.testing.assert_close(row.exp(), torch.stack(expected))


def test_context_reads_a_set_not_a_list(float64: None) -> None:
    built, support, queries = in_context()
    logits = built.adapt(support)(queries)
    shuffled = torch.randperm(5)
    again = built.adapt(Examples(support.x[:, shuffled], support.y[:, shuffled]))(queries)
    torch.testing.assert_close(again, logits)
    renamed = built.adapt(Examples(support.x, (support.y + 1) % 3))(queries)
    torch.testing.assert_close(renamed.roll(-1, 2), logits)


def test_the_order_is_that_of_the_images_and_as_good_as_random() -> None:
    x = torch.rand(40, 5, 1, 28, 28)
    shuffled = torch.randperm(5)
    assert torch.equal(shuffled[order(x[:, shuffled])], order(x))
    assert len(order(x).unique(dim=0)) > 20  # of 120


@pytest.mark.parametrize("steps", [1, 2])
def test_the_queries_embedding_depends_on_the_support_set_alone_beside_itself(steps: int, float64: None) -> None:
    torch.manual_seed(0)
    built = MatchingNet(Pixels(D, 1, 1), context=True, processing_steps=steps)
    _, support, queries = in_context()
    together, alone = built.adapt(support)(queries)[:, :1], built.adapt(support)(queries[:, :1])
    torch.testing.assert_close(together, alone)
    other = Examples(support.x.flip(2), support.y)
    assert not torch.allclose(built.adapt(other)(queries), built.adapt(support)(queries))
