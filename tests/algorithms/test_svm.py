"""The multi-class SVM against scikit-learn's and its own dual, its gradient, and degenerate support sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.svm import LinearSVC
from torch import Tensor

from fsl_cli.algorithms.solvers import svm
from fsl_cli.algorithms.solvers.svm import crammer_singer


def task(shots: list[int], d: int, scale: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """One task's features (1, n, d) around a point for each class, and labels (1, n) with these shots, shuffled."""
    dice = torch.Generator().manual_seed(seed)
    y = torch.repeat_interleave(torch.arange(len(shots)), torch.tensor(shots))
    y = y[torch.randperm(len(y), generator=dice)]
    centres, noise = (torch.randn(n, d, generator=dice, dtype=torch.float64) for n in (len(shots), len(y)))
    return scale * (centres[y] + noise).unsqueeze(0), y.unsqueeze(0)


def primal(weights: Tensor, x: Tensor, y: Tensor, cost: float) -> float:
    """What the machine minimises, of W (d, way)."""
    scores = x @ weights  # (n, way)
    right = scores.gather(1, y.unsqueeze(1))
    margins = (1 - F.one_hot(y).to(x) + scores - right).amax(1)
    return float(weights.square().sum() / 2 + cost * margins.sum())


@pytest.mark.parametrize(
    ("shots", "d", "scale", "cost"),
    [
        ([1] * 5, 64, 1.0, 0.1),
        ([5] * 5, 8, 1.0, 0.1),
        ([5] * 5, 64, 0.05, 0.1),
        ([3] * 5, 64, 20.0, 0.1),
        ([1, 9, 3], 16, 1.0, 1.0),
        ([4, 4], 3, 1.0, 0.1),
    ],
)
def test_weights_are_those_of_liblinear(shots: list[int], d: int, scale: float, cost: float) -> None:
    x, y = task(shots, d, scale)
    trusted = LinearSVC(
        C=cost, multi_class="crammer_singer", fit_intercept=False, tol=1e-9, max_iter=1_000_000, random_state=0
    ).fit(x[0].numpy(), y[0].numpy())
    expected = torch.from_numpy(np.atleast_2d(trusted.coef_)).T
    own = crammer_singer(x, y, cost)[0]
    if len(shots) == 2:  # liblinear leaves the difference of both columns
        own = own[:, 1:] - own[:, :1]
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 1.0, 1e2, 1e3])
@pytest.mark.parametrize("shots", [[1] * 5, [7] * 5, [1, 12, 2]])
def test_the_gap_to_the_dual_is_below_the_tolerance(shots: list[int], scale: float) -> None:
    x, y = task(shots, 20, scale)
    gram, targets = 0.1 * x @ x.mT, F.one_hot(y).mT.double()
    a = svm._solve(gram, targets)[0]
    assert a.sum(1).abs().max() < 1e-14 * len(y[0])  # feasible: rows sum to 0
    assert (a - targets).max() < 1e-14
    energy = (a * (a @ gram)).sum() / 2
    dual = 0.1 * float((a * targets).sum() - energy)
    weights = crammer_singer(x, y, 0.1)[0]
    assert 2 * 0.1 * float(energy) == pytest.approx(float(weights.square().sum()))
    without = 0.1 * len(y[0])  # the objective at W = 0
    assert -1e-14 < (primal(weights, x[0], y[0], 0.1) - dual) / without < 1e-8


def test_two_examples_by_hand() -> None:
    """x = e1 of class 0, x = 2 e2 of class 1, C = 1: each margin 1 is met by W's columns +-(0.5, -0.25) e."""
    x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]], dtype=torch.float64)
    expected = torch.tensor([[0.5, -0.5], [-0.25, 0.25]], dtype=torch.float64)
    torch.testing.assert_close(crammer_singer(x, torch.tensor([[0, 1]]), 1.0)[0], expected, rtol=1e-6, atol=1e-9)


def test_a_small_cost_leaves_all_examples_at_their_bound() -> None:
    """Far below any margin each a is 1 or -1: a column is C times its examples' sum, less that of the others."""
    x, y = task([3, 3], 4, 1e-3)
    sums = F.one_hot(y[0]).double().T @ x[0]  # (way, d)
    expected = 0.1 * torch.stack([sums[0] - sums[1], sums[1] - sums[0]], 1)
    torch.testing.assert_close(crammer_singer(x, y, 0.1)[0], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("scale", [0.05, 1.0, 10.0])
@pytest.mark.parametrize(("shots", "d"), [([1] * 5, 30), ([4] * 5, 6), ([1, 6, 2], 30)])
def test_the_gradient_equals_finite_differences(shots: list[int], d: int, scale: float) -> None:
    x, y = task(shots, d, scale)
    x.requires_grad_()
    upstream, direction = task(shots, len(shots), 1.0, 1)[0].mT @ x.detach(), task(shots, d, 1.0, 2)[0]

    def value(at: Tensor) -> Tensor:
        return (crammer_singer(at, y, 0.1) * upstream.mT).sum()

    [gradient] = torch.autograd.grad(value(x), x)
    step = 1e-5 * scale
    with torch.no_grad():
        measured = float(value(x + step * direction) - value(x - step * direction)) / (2 * step)
    assert measured == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


def test_tasks_side_by_side_are_as_alone() -> None:
    """To the last digits: those that are done stand still while another goes on."""
    x, y = (
        torch.cat(parts)
        for parts in zip(*(task([3, 3, 3], 9, s, i) for i, s in enumerate((1e-2, 1, 1e2))), strict=True)
    )
    alone = torch.cat([crammer_singer(x[i : i + 1], y[i : i + 1], 0.1) for i in range(3)])
    torch.testing.assert_close(crammer_singer(x, y, 0.1), alone, rtol=1e-10, atol=1e-14)


DEGENERATE = {
    "zeros": lambda x: torch.zeros_like(x),
    "all alike": lambda x: x[:, :1].expand_as(x).clone(),
    "copies": lambda x: x[:, [0, 0, 0, 1, 1, 1, 2, 2, 2]].clone(),
    "one feature": lambda x: x * (torch.arange(x.shape[2]) == 0),
    "huge and tiny": lambda x: x * 10.0 ** torch.linspace(-8, 4, x.shape[1]).view(1, -1, 1),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize(
    "sorted_labels", [True, False]
)  # copies in one class, and in several, which cannot be told apart
def test_a_degenerate_support_set_gives_finite_weights_and_gradients(name: str, sorted_labels: bool) -> None:
    x = DEGENERATE[name](torch.randn(1, 9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    y = torch.arange(9).unsqueeze(0) // 3 if sorted_labels else torch.arange(9).unsqueeze(0) % 3
    x.requires_grad_()
    weights = crammer_singer(x, y, 0.1)
    weights.square().sum().backward()
    assert weights.isfinite().all() and x.grad is not None and x.grad.isfinite().all()
    if name in ("zeros", "all alike"):
        assert weights.abs().max() < 1e-6
    if name != "huge and tiny":  # there liblinear takes for ever
        trusted = LinearSVC(C=0.1, multi_class="crammer_singer", fit_intercept=False, tol=1e-9, max_iter=100_000)
        best = torch.from_numpy(trusted.fit(x[0].detach().numpy(), y[0].numpy()).coef_).T
        own, others = (primal(each, x[0].detach(), y[0], 0.1) for each in (weights[0].detach(), best))
        assert own <= others * (1 + 1e-8)
