"""iMAML's gradient: closed form on quadratics, and MAML's through all the steps once these arrive."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_algorithms import flat
from torch import Tensor
from torch.func import functional_call, vmap

from fsl_cli.algorithms.imaml import IMAML, at_minimum, conjugate_gradients, proximal
from fsl_cli.algorithms.inner_loop import Parameters, adapt, sgd
from fsl_cli.algorithms.network import support_loss
from fsl_cli.backbones.mlp import MLP
from fsl_cli.episodes import Episodes, Examples, task_loss

PENALTY = 0.7


def definite(n: int) -> Tensor:
    root = torch.randn(n, n)
    return root @ root.T / n + 0.1 * torch.eye(n)


def quadratic(matrix: Tensor, target: Tensor) -> Callable[[Parameters], Tensor]:
    """(w - target - r)' A (w - target - r) / 2: r is a weight that the inner loop leaves alone."""

    def loss(p: Parameters) -> Tensor:
        away = torch.cat([p["w"], p["b"].flatten()]) - target - p["r"]
        return away @ matrix @ away / 2

    return loss


@pytest.mark.parametrize("side_by_side", [False, True])
def test_on_quadratics_the_gradient_has_its_closed_form(side_by_side: bool, float64: None) -> None:
    """phi* = (A + l)^-1 (A (c + r) + l theta): d phi* / d theta = l (A + l)^-1, and d phi* / d r = (A + l)^-1 A."""
    a, other, c, target = definite(5), definite(5), torch.randn(5), torch.randn(5)
    theta, r = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    inverse = torch.linalg.inv(a + PENALTY * torch.eye(5))
    best = inverse @ (a @ (c + r) + PENALTY * theta)
    away = best - target - r
    wanted = torch.autograd.grad(away @ other @ away / 2, [theta, r])

    def loss(start: Tensor, r: Tensor) -> Tensor:
        parameters = {"w": start[:3], "b": start[3:].view(1, 2), "r": r}
        phi = {"w": best.detach()[:3], "b": best.detach()[3:].view(1, 2)}
        return at_minimum(quadratic(a, c), quadratic(other, target), parameters, phi, PENALTY, 5)

    found = vmap(loss)(theta[None], r[None])[0] if side_by_side else loss(theta, r)
    torch.testing.assert_close(found, away @ other @ away / 2)
    torch.testing.assert_close(torch.autograd.grad(found, [theta, r]), wanted, rtol=1e-8, atol=1e-8)


def test_conjugate_gradients_begin_at_first_order_and_stop_at_negative_curvature(float64: None) -> None:
    a, target = definite(6) + torch.eye(6), torch.randn(6)
    first = conjugate_gradients(lambda v: a @ v, target, 2.0, 0)
    torch.testing.assert_close(first, target / 2)
    errors = [(a @ conjugate_gradients(lambda v: a @ v, target, 2.0, k) - target).norm() for k in (0, 3, 6, 9)]
    assert errors[0] > 10 * errors[2] and errors[1] > 10 * errors[2] and max(errors[2:]) < 1e-9
    for sign in (-1.0, 0.0):
        torch.testing.assert_close(conjugate_gradients(lambda v, s=sign: s * a @ v, target, 2.0, 4), first)


@pytest.mark.parametrize("tasks", [1, 2])
def test_once_the_steps_arrive_it_is_the_gradient_through_all_of_them(tasks: int, float64: None) -> None:
    """A small smooth network, tasks one by one and side by side; the outer loop alone moves its first layer's bias."""
    torch.manual_seed(0)
    backbone = MLP(1, 2, "none", [4], start="torch", activation="tanh")
    built = IMAML(
        backbone, 3, inner_lr=0.2, inner_steps=500, test_steps=0, penalty=0.5, cg_steps=40, frozen="layers.0.b"
    )
    sets = [Examples(torch.randn(tasks, n, 1, 2, 2), torch.randint(3, (tasks, n))) for n in (6, 9)]
    some = Episodes(*sets, torch.zeros(tasks, 3), torch.arange(tasks))
    parameters = dict(built.net.named_parameters())
    start = {name: parameters[name] for name in built.adapted}
    losses = []
    for i in range(tasks):
        support, query = (Examples(each.x[i], each.y[i]) for each in sets)
        objective = proximal(support_loss(built.net, support), start, 0.5)
        fast = adapt(objective, parameters, built.adapted, 500, sgd(0.2))
        losses.append(task_loss(functional_call(built.net, fast, (query.x,)), query.y))
        end = {name: value.detach().requires_grad_() for name, value in fast.items()}
        left = torch.autograd.grad(objective(end, 0), [end[name] for name in built.adapted])
        assert flat(left).norm() < 1e-6  # the problem is solved
    wanted = torch.autograd.grad(torch.stack(losses).mean(), list(parameters.values()))
    own = built.loss(some)
    torch.testing.assert_close(own, torch.stack(losses).mean())
    found = torch.autograd.grad(own, list(parameters.values()))
    torch.testing.assert_close(flat(found), flat(wanted), rtol=1e-3, atol=1e-6)
