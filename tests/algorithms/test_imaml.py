"""iMAML's gradient: closed form on quadratics, and MAML's through all the steps once these arrive."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_algorithms import flat
from torch import Tensor
from torch.func import functional_call, vmap

from fsl_cli.algorithms.imaml import IMAML, at_minimum, conjugate_gradients, descending, proximal
from fsl_cli.algorithms.inner_loop import Loss, Parameters, adapt, sgd
from fsl_cli.algorithms.network import support_loss
from fsl_cli.backbones.mlp import MLP
from fsl_cli.cli import run
from fsl_cli.episodes import Episodes, Examples, task_loss
from fsl_cli.errors import UserError

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


def gradient_of(objective: Loss, at: Parameters, names: set[str]) -> Tensor:
    end = {name: value.detach().requires_grad_() for name, value in at.items()}
    return flat(torch.autograd.grad(objective(end, 0), [end[name] for name in names]))


@pytest.mark.parametrize("tasks", [1, 2])
def test_once_the_steps_arrive_it_is_the_gradient_through_all_of_them(tasks: int, float64: None) -> None:
    """A small smooth network, tasks one by one and side by side; the outer loop alone moves its first layer's bias."""
    torch.manual_seed(0)
    backbone = MLP(1, 2, "none", [4], start="torch", activation="tanh")
    built = IMAML(
        backbone, 3, inner_lr=0.2, inner_steps=500, test_steps=0, penalty=0.5, cg_steps=40, frozen="layers.0.b"
    )
    sets = [Examples(torch.randn(tasks, n, 1, 2, 2), torch.randint(3, (tasks, n))) for n in (6, 9)]
    episodes = Episodes(*sets, torch.zeros(tasks, 3), torch.arange(tasks))
    parameters = dict(built.net.named_parameters())
    start = {name: parameters[name] for name in built.adapted}
    losses, left = [], built.unsolved(sets[0], 3)
    assert left.shape == (tasks,) and torch.equal(built.unsolved(sets[0], 0), torch.ones(tasks))
    assert built.unsolved(sets[0], 500).max() < 1e-5
    for i in range(tasks):
        support, query = (Examples(each.x[i], each.y[i]) for each in sets)
        objective = proximal(support_loss(built.net, support), start, 0.5)
        some = adapt(objective, parameters, built.adapted, 3, sgd(0.2))
        lengths = [gradient_of(objective, fast, built.adapted).norm() for fast in (parameters, some)]
        torch.testing.assert_close(left[i], lengths[1] / lengths[0])
        fast = adapt(objective, parameters, built.adapted, 500, sgd(0.2))
        losses.append(task_loss(functional_call(built.net, fast, (query.x,)), query.y))
        assert gradient_of(objective, fast, built.adapted).norm() < 1e-6  # the problem is solved
    wanted = torch.autograd.grad(torch.stack(losses).mean(), list(parameters.values()))
    own = built.loss(episodes)
    torch.testing.assert_close(own, torch.stack(losses).mean())
    found = torch.autograd.grad(own, list(parameters.values()))
    torch.testing.assert_close(flat(found), flat(wanted), rtol=1e-3, atol=1e-6)


def test_damping_22_gives_the_double_of_the_damped_equations_of_the_authors_code(float64: None) -> None:
    """They solve ((1 + 1) I + H / (penalty + 10)) v = dL_Q at a penalty of 2, with H of the support loss."""
    torch.manual_seed(0)
    backbone = MLP(1, 2, "none", [4], start="torch", activation="tanh")
    built = IMAML(backbone, 3, 0.1, 3, 3, penalty=2.0, cg_steps=60, damping=22.0, frozen="nothing").train()
    sets = [Examples(3 * torch.randn(1, n, 1, 2, 2), torch.randint(3, (1, n))) for n in (6, 9)]
    built.loss(Episodes(*sets, torch.zeros(1, 3), torch.arange(1))).backward()
    parameters = dict(built.net.named_parameters())
    names, shapes = list(parameters), [value.shape for value in parameters.values()]
    own = [Examples(each.x[0], each.y[0]) for each in sets]
    on_support = support_loss(built.net, own[0])
    fast = adapt(proximal(on_support, parameters, 2.0), parameters, built.adapted, 3, sgd(0.1), first_order=True)
    at = flat(fast.values()).detach().requires_grad_()

    def whole(vector: Tensor) -> Parameters:
        parts = vector.split([shape.numel() for shape in shapes])
        return {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}

    hessian = torch.autograd.functional.hessian(lambda v: on_support(whole(v), 0), at)
    logits = functional_call(built.net, whole(at), (own[1].x, own[0].x))
    [towards] = torch.autograd.grad(task_loss(logits, own[1].y), at)
    theirs = torch.linalg.solve(2 * torch.eye(len(at)) + hessian / (2 + 10), towards)
    torch.testing.assert_close(flat(value.grad for value in parameters.values()), 2 * theirs, rtol=1e-6, atol=1e-8)


def test_a_test_says_what_is_left_of_the_inner_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = [
        "data.train_classes=12",
        "data.val_classes=6",
        "data.test_classes=6",
        "data.size=16",
        "backbone.filters=4",
        "norm=none",
    ]
    words = ["train", "algo=imaml", *few, "way=3", "train_way=3", "steps=0", "episodes=4", "trainer=cpu"]
    words += ["algo.frozen=backbone"]  # of a head alone the problem is convex
    run([*words, "algo.inner_steps=1", "algo.test_steps=40", f"out={tmp_path}"])
    [folder] = tmp_path.glob("*/*")
    found = json.loads((folder / "result.json").read_text())["inner_problem"]
    assert found["steps"] == [1, 40] and found["episodes"] == 4 and found["left"][1] < 0.02 < 0.5 < found["left"][0]
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "gradient of the inner problem, of that at the start: after 1 steps" in said and "not solved" in said
    with pytest.raises(UserError, match=r"algo.penalty=10: such steps .* Type algo.take_back=true, or .*inner_lr=0.05"):
        run(["check", "algo=imaml", *few, "way=3", "train_way=3", "algo.inner_lr=0.5", "algo.penalty=10"])


def test_steps_that_rise_are_taken_back_and_the_minimum_is_reached(float64: None) -> None:
    """At ten times the rate at which plain steps would go away from it; side by side as alone."""
    a, c, start = definite(5) + torch.eye(5), torch.randn(2, 5), torch.randn(2, 5)

    def reached(c: Tensor, start: Tensor, steps: int = 200) -> Tensor:
        def loss(weights: Parameters, step: int) -> Tensor:
            return (weights["w"] - c) @ a @ (weights["w"] - c) / 2

        return adapt(loss, {"w": start}, {"w"}, steps, descending(20.0), first_order=True)["w"]

    found = vmap(reached)(c, start)
    torch.testing.assert_close(found, torch.stack([reached(*each) for each in zip(c, start, strict=True)]))
    torch.testing.assert_close(found, c, rtol=0, atol=1e-4)
    assert (found - c).norm() < 1e-3 * (start - c).norm()
