"""Batched logistic regression against scikit-learn's, at its stated tolerance."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from test_svm import task
from torch import Tensor

from fsl_cli.algorithms.solvers.logistic import TOLERANCE, logistic_classifier, logistic_regression

CASES = [
    ([5] * 5, 640, 1.0, 1.0),  # fewer examples than features
    ([1] * 5, 64, 1.0, 1.0),
    ([15] * 5, 10, 1.0, 1.0),  # more examples than features, classes that overlap
    ([1, 9, 3], 20, 1.0, 10.0),
    ([5] * 3, 30, 10.0, 100.0),  # far from linear, and separable: full Newton steps overshoot
    ([5] * 3, 30, 1e-3, 1.0),
]


@pytest.mark.parametrize(("shots", "d", "scale", "cost"), CASES)
def test_weights_and_bias_are_those_of_scikit_learn(shots: list[int], d: int, scale: float, cost: float) -> None:
    x, y = task(shots, d, scale / d**0.5)
    trusted = LogisticRegression(C=cost, tol=1e-10, max_iter=100_000).fit(x[0].numpy(), y[0].numpy())
    weight, bias = logistic_regression(x, y, cost)
    torch.testing.assert_close(weight[0].T, torch.from_numpy(trusted.coef_), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(bias[0, 0], torch.from_numpy(trusted.intercept_), rtol=1e-4, atol=1e-5)


def test_two_classes_are_scikit_learns_single_column_at_twice_the_cost() -> None:
    x, y = task([4, 7], 6)
    trusted = LogisticRegression(C=2.0, tol=1e-10, max_iter=100_000).fit(x[0].numpy(), y[0].numpy())
    weight, bias = logistic_regression(x, y, 1.0)
    torch.testing.assert_close(weight[0].diff(dim=1).T, torch.from_numpy(trusted.coef_), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bias[0, 0].diff(), torch.from_numpy(trusted.intercept_), rtol=1e-5, atol=1e-6)


def gradient(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, cost: float) -> Tensor:
    """Of the objective, by autograd, of T tasks: (T, d + 1, way)."""
    both = torch.cat([weight, bias], 1).requires_grad_()
    scores = x @ both[:, :-1] + both[:, -1:]
    losses = F.cross_entropy(scores.flatten(0, 1), y.flatten(), reduction="sum")
    return torch.autograd.grad(both[:, :-1].square().sum() / 2 + cost * losses, both)[0]


@pytest.mark.parametrize(("shots", "d", "scale", "cost"), CASES)
def test_the_gradient_is_below_the_stated_tolerance(shots: list[int], d: int, scale: float, cost: float) -> None:
    x, y = task(shots, d, scale / d**0.5)
    assert gradient(*logistic_regression(x, y, cost), x, y, cost).norm() < 1.01 * TOLERANCE


def test_tasks_side_by_side_are_as_alone() -> None:
    """To the last digits: those that are done stand still while another goes on."""
    tasks = [task([3, 2, 4], 6, scale, i) for i, scale in enumerate((0.01, 1.0, 30.0))]
    x, y = (torch.cat(parts) for parts in zip(*tasks, strict=True))
    together = logistic_regression(x, y, 10.0)
    alone = [torch.cat(parts) for parts in zip(*(logistic_regression(*one, 10.0) for one in tasks), strict=True)]
    for ours, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
    for each in gradient(*together, x, y, 10.0):
        assert each.norm() < 1.01 * TOLERANCE


def test_steps_that_overshoot_are_cut() -> None:
    """Newton's whole steps run away here."""
    x, y = task([3, 3, 3], 3, 100.0, 1)
    assert gradient(*logistic_regression(x, y, 1e5), x, y, 1e5).norm() < 1.01 * TOLERANCE


def test_what_all_classes_could_share_stays_zero() -> None:
    """As in scikit-learn: rounding, of which such a C makes much, must not move all biases together."""
    x, y = task([5] * 3, 30, 10.0)
    weight, bias = logistic_regression(x, y, 1e8)
    assert bias.sum().abs() < 1e-4
    assert weight.sum(-1).abs().max() < 1e-4


@pytest.mark.parametrize("x", [torch.zeros(1, 6, 4), torch.ones(1, 6, 4), torch.eye(2).repeat(1, 3, 1)])
def test_features_that_tell_nothing_leave_the_shares_of_the_classes(x: Tensor) -> None:
    """Images that are alike: (4, 2) shots give odds of two to one."""
    y = torch.tensor([[0, 0, 0, 0, 1, 1]])
    shares = logistic_classifier(x, y)(x).softmax(-1)[0]
    torch.testing.assert_close(shares.mean(0), torch.tensor([2 / 3, 1 / 3]), rtol=1e-4, atol=1e-4)


def test_the_classifier_scores_new_features_in_their_own_type() -> None:
    x, y = task([5] * 3, 12)
    weight, bias = logistic_regression(x, y, 2.0)
    queries = torch.randn(1, 4, 12, generator=torch.Generator().manual_seed(1))
    logits = logistic_classifier(x.float(), y, 2.0)(queries)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, (queries.double() @ weight + bias).float(), rtol=1e-4, atol=1e-4)
