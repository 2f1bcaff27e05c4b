"""Multinomial logistic regression with an L2 penalty, for T tasks at once; as scikit-learn's LogisticRegression.

    minimise over W, b   |W|^2 / 2 + C sum_i cross-entropy(x_i W + b, y_i)

Newton's method, each step found by conjugate gradients, to a gradient of 1e-6 at most. The penalty keeps W in the span
of the n examples, so that in an orthonormal basis of it d features become n, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Of the gradient's Euclidean norm; W is then as near to the best, as the penalty curves by 1. Rounding may keep the
# norm above it where C times the length of the features is beyond 1e6.
TOLERANCE = 1e-6
STEPS = 100  # at most; 4 to 12 were needed for C of 1 to 100 and norms of 1 to 30
HALVINGS = 40


def logistic_classifier(x: Tensor, y: Tensor, cost: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Support features (T, n, d) and labels (T, n) -> a function from features (T, m, d) to logits (T, m, way)."""
    weight, bias = logistic_regression(x, y, cost)
    return lambda features: (features.double() @ weight + bias).to(features.dtype)


@torch.no_grad()
def logistic_regression(x: Tensor, y: Tensor, cost: float = 1.0) -> tuple[Tensor, Tensor]:
    """The W (T, d, way) and b (T, 1, way) of features x (T, n, d), labels y (T, n) and C = `cost`, in float64.

    Not differentiable. Two classes have a column each; scikit-learn has one for both, the same with twice our C.
    """
    examples = x.double()
    basis = None
    if examples.shape[1] < examples.shape[2]:
        basis, coordinates = torch.linalg.qr(examples.mT)  # (T, d, n), (T, n, n)
        examples = coordinates.mT
    solution = _minimise(F.pad(examples, (0, 1), value=1.0), F.one_hot(y).double(), cost)  # (T, r + 1, way)
    weight, bias = solution[:, :-1], solution[:, -1:]
    return weight if basis is None else basis @ weight, bias


def _minimise(x: Tensor, targets: Tensor, cost: float) -> Tensor:
    """The weights (T, r, way) of x (T, n, r), whose last feature, 1, goes unpenalised, and targets (T, n, way)."""
    penalty = torch.ones_like(x[:1, :1].mT)  # (1, r, 1)
    penalty[:, -1] = 0

    def objective(weights: Tensor) -> Tensor:
        scores = x @ weights
        losses = scores.logsumexp(-1) - (scores * targets).sum(-1)  # (T, n)
        return _dot(weights, penalty * weights) / 2 + cost * losses.sum(1)[:, None, None]

    weights = x.new_zeros(len(x), x.shape[2], targets.shape[2])
    value = objective(weights)  # (T, 1, 1), as all numbers of a task
    for _ in range(STEPS):
        shares = (x @ weights).softmax(-1)  # (T, n, way)
        gradient = penalty * weights + cost * x.mT @ (shares - targets)
        # the same change of all classes changes nothing, and rounding must not start one; what is done stays as it is
        gradient = gradient - gradient.mean(-1, keepdim=True)
        done = _dot(gradient, gradient) <= TOLERANCE**2
        if done.all():
            break

        def hessian(direction: Tensor, shares: Tensor = shares) -> Tensor:
            change = shares * (x @ direction)
            return penalty * direction + cost * x.mT @ (change - shares * change.sum(-1, keepdim=True))

        step = _conjugate_gradients(hessian, torch.where(done, 0, -gradient))
        weights, value = _descend(objective, weights, value, step, _dot(gradient, step))
    return weights


def _conjugate_gradients(product: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    """The v (T, r, way) with product(v) = target, the more exact the smaller the target: Newton's steps stay fast."""
    found, left = torch.zeros_like(target), target
    direction, square = left, _dot(left, left)
    enough = square * square.sqrt().clamp(max=0.01)  # an error of |target|^(3/2), a tenth of |target| at most
    for _ in range(target[0].numel()):
        going = square > enough
        if not going.any():
            break
        curved = product(direction)
        length = torch.where(going, square / _dot(direction, curved), 0)
        found, left = found + length * direction, left - length * curved
        before, square = square, _dot(left, left)
        direction = left + torch.where(going, square / before, 0) * direction
    return found


def _descend(
    objective: Callable[[Tensor], Tensor], weights: Tensor, value: Tensor, step: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """The weights after the step, halved in each task until the objective falls (Armijo), and the objective there."""
    length = torch.ones_like(value)
    for _ in range(HALVINGS):
        after = objective(weights + length * step)
        falls = after <= value + 1e-4 * length * slope + 1e-12 * value  # the last: at the end, rounding decides
        if falls.all():
            break
        length = torch.where(falls, length, length / 2)
    return weights + length * step, after


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2), keepdim=True)
