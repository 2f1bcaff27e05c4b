"""The inner loop's mathematics on problems with a closed form, and ProtoNet's logits by hand."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms.inner_loop import Parameters, Rule, adapt, sgd, trajectory
from fsl_cli.algorithms.over_tasks import for_each_task, mean_loss
from fsl_cli.algorithms.protonet import logits, prototypes

LR, STEPS = 0.1, 3
A = torch.diag(
    torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
)  # loss (w - c)' A (w - c) / 2 of a task with target c


def quadratic(target: Tensor):
    return lambda p, step: 0.5 * (p["w"] - target) @ A @ (p["w"] - target)


@pytest.mark.parametrize("first_order", [False, True])
def test_mamls_meta_gradient_on_a_quadratic_has_its_closed_form(first_order: bool) -> None:
    w = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    support, query = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fast = adapt(quadratic(support), {"w": w}, {"w"}, STEPS, sgd(LR), first_order)
    shrink = torch.linalg.matrix_power(torch.eye(3, dtype=torch.float64) - LR * A, STEPS)
    torch.testing.assert_close(fast["w"], support + shrink @ (w - support))
    quadratic(query)(fast, 0).backward()
    at_fast = A @ (fast["w"] - query).detach()
    torch.testing.assert_close(w.grad, at_fast if first_order else shrink.T @ at_fast)


def test_only_the_named_parameters_adapt_and_all_receive_gradients() -> None:
    w, b = (torch.ones(3, requires_grad=True) for _ in range(2))
    fast = adapt(lambda p, step: (p["w"] * p["b"]).square().sum(), {"w": w, "b": b}, {"w"}, 2, sgd(LR))
    assert fast["b"] is b
    assert not torch.equal(fast["w"], w)
    (gradient,) = torch.autograd.grad(fast["w"].sum(), b)
    assert gradient.abs().sum() > 0  # through the inner steps


@pytest.mark.parametrize("how", ["plain", "checkpoint", "side by side"])
def test_a_parameter_that_is_made_of_another_counts_as_its_own(how: str) -> None:
    """For b = 3 w and a step on w b: w' = w - LR b = (1 - 3 LR) w, which has no term from b's dependence on w."""
    w = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)

    def adapted(start: Tensor) -> Tensor:
        both, again = {"w": start, "b": 3 * start}, how == "checkpoint"
        fast = adapt(lambda p, step: (p["w"] * p["b"]).sum(), both, set(both), 1, sgd(LR), checkpoint=again)
        return torch.stack([fast["w"], fast["b"]])

    found = torch.func.vmap(adapted)(w[None])[0] if how == "side by side" else adapted(w)
    torch.testing.assert_close(found[:, 0], torch.tensor([(1 - 3 * LR) * 2, (3 - LR) * 2], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(found.sum(), w)
    assert float(gradient) == pytest.approx(1 - 3 * LR + 3 - LR)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("inside", ["vmap", "vmap of grad"])
def test_tasks_side_by_side_come_to_what_each_comes_to(inside: str, first_order: bool) -> None:
    """Also inside another transformation, where torch.autograd cannot take the place of torch.func."""
    start = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    targets = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def learned(w: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        fast = adapt(lambda p, step: p["w"].pow(4) @ (p["w"] - target), {"w": w}, {"w"}, 2, sgd(1e-3), first_order)
        return fast["w"].square().sum()

    one = learned if inside == "vmap" else torch.func.grad(learned)
    found = torch.func.vmap(lambda target: one(start, target))(targets)
    each = [learned(start, target) for target in targets]
    if inside == "vmap":
        torch.testing.assert_close(found, torch.stack(each))
        found = torch.stack([torch.autograd.grad(value, start, retain_graph=True)[0] for value in found])
    wanted = torch.stack([torch.autograd.grad(value, start)[0] for value in each])
    torch.testing.assert_close(found, wanted)


def test_first_order_keeps_no_graph_of_the_steps() -> None:
    w = torch.ones(3, requires_grad=True)
    seen = []

    def loss(p: Parameters, step: int) -> Tensor:
        seen.append(p["w"].requires_grad)
        return p["w"].square().sum()

    adapt(loss, {"w": w}, {"w"}, 3, sgd(LR), first_order=True)
    assert len(seen) == 3
    fast = adapt(loss, {"w": w}, {"w"}, 3, sgd(LR), first_order=True)
    assert nodes(fast["w"]) == 3 + 2  # the subtractions, w, and the view of it


def momentum(rate: Tensor) -> Rule:
    """Heavy ball with a learned rate, which is part of the state."""

    def update(step: int, fast: Parameters, gradients: Parameters, loss: Tensor, state: Any) -> tuple[Parameters, Any]:
        speed = {name: 0.5 * state["speed"][name] + gradients[name] for name in fast}
        moved = {name: fast[name] - state["rate"] / (1 + step) * speed[name] for name in fast}
        return moved, {"speed": speed, "rate": state["rate"]}

    return Rule(
        lambda fast: {"speed": {name: torch.zeros_like(value) for name, value in fast.items()}, "rate": rate}, update
    )


def nodes(tensor: Tensor) -> int:
    """How large the graph behind a tensor is."""
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [earlier for earlier, _ in node.next_functions if earlier]
    return len(seen)


@pytest.mark.parametrize("first_order", [False, True])
def test_steps_that_are_built_again_give_the_same_gradients_and_keep_no_graph(first_order: bool) -> None:
    gradients, kept = [], []
    for checkpoint in (False, True):
        w, b, rate = (torch.full((3,), value, dtype=torch.float64, requires_grad=True) for value in (1.0, 0.5, 0.1))

        def loss(p: Parameters, step: int) -> Tensor:
            return (p["w"] * p["b"]).sin().exp().sum() + p["w"].pow(4).sum()

        fast = adapt(loss, {"w": w, "b": b}, {"w"}, 4, momentum(rate), first_order, checkpoint)
        kept.append(nodes(fast["w"]))
        gradients.append(torch.autograd.grad((fast["w"] * fast["b"]).sum(), [w, b, rate]))
    torch.testing.assert_close(gradients[1], gradients[0])
    assert kept[1] == 4 + 4  # the steps, the three leaves, and the view of w
    assert first_order or kept[0] > 5 * kept[1]


def test_the_trajectory_has_every_step() -> None:
    w = torch.tensor([4.0])
    steps = list(trajectory(lambda p, step: (p["w"] * (step + 1)).sum(), {"w": w}, {"w"}, 3, sgd(1.0)))
    assert [float(step["w"]) for step in steps] == [3.0, 1.0, -2.0]


def test_tasks_run_in_several_threads_without_mixing_their_weights(one_by_one: None) -> None:
    net = nn.Linear(4, 4, bias=False)
    weights = torch.randn(64, 4, 4)
    x = torch.randn(64, 4)
    before = torch.get_num_threads()
    torch.set_num_threads(4)

    def function(own: nn.Module, w: Tensor, x: Tensor) -> Tensor:
        assert own is not net and w.shape == (4, 4)  # a copy, and one task
        return functional_call(own, {"weight": w}, (x,))

    try:
        out = for_each_task(net, function, weights, x)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(out, torch.einsum("toi,ti->to", weights, x))


@pytest.mark.parametrize("threads", [1, 3])
def test_autocast_and_gradient_mode_reach_every_thread(threads: int) -> None:
    net, x = nn.Linear(4, 4), torch.randn(6, 2, 4)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            out = for_each_task(net, lambda own, x: own(x), x)
    finally:
        torch.set_num_threads(before)
    assert out.dtype == torch.bfloat16
    assert not out.requires_grad


def test_each_tasks_graph_is_freed_before_the_next(one_by_one: None) -> None:
    net = nn.Linear(4, 4)
    alive: list[weakref.ref[Tensor]] = []

    def loss(own: nn.Module, parameters: Parameters, x: Tensor) -> Tensor:
        gc.collect()
        assert sum(ref() is not None for ref in alive) == 0
        hidden = functional_call(own, parameters, (x,))
        alive.append(weakref.ref(hidden))
        return hidden.square().mean()

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        mean_loss(net, loss, dict(net.named_parameters()), torch.randn(5, 2, 4)).backward()
    finally:
        torch.set_num_threads(before)
    assert len(alive) == 5
    assert net.weight.grad is not None


def test_prototypes_and_logits_by_hand() -> None:
    features = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]]])
    centres = prototypes(features, torch.tensor([[0, 0, 1]]))  # unequal shots
    assert centres.tolist() == [[[1.0, 0.0], [1.0, 3.0]]]
    assert logits(torch.tensor([[[1.0, 1.0], [4.0, 4.0]]]), centres).tolist() == [[[-1.0, -4.0], [-25.0, -10.0]]]
