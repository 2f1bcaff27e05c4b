"""Meta-LSTM: gradient descent as a special case, what the LSTM sees, and the gradient with gradients held fixed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_algorithms import algorithm, episodes, flat
from torch import Tensor

from fsl_cli.algorithms.inner_loop import Parameters, adapt, sgd
from fsl_cli.algorithms.metalstm import _Gates, _State, by_gates
from fsl_cli.algorithms.size_and_sign import size_and_sign

Recorded = list[tuple[Parameters, Tensor]]  # of each step, gradients and loss


def gates(hidden: int = 4) -> Parameters:
    torch.manual_seed(0)
    return {name: value.detach() + 0.3 * torch.randn_like(value) for name, value in _Gates(hidden).named_parameters()}


def loss(weights: Parameters, step: int) -> Tensor:
    return (weights["w"] @ weights["w"].T).sin().sum() + (weights["w"].sum(0) * weights["b"]).exp().sum()


START = {"w": torch.tensor([[0.5, -0.2, 0.1], [0.3, 0.4, -0.6]], dtype=torch.float64), "b": torch.ones(3).double() / 2}


def test_without_weights_it_is_gradient_descent(float64: None) -> None:
    rate = 0.07
    own = {name: torch.zeros_like(value) for name, value in gates().items()}
    own |= {"forget_bias": torch.tensor([40.0]), "enter_bias": torch.tensor([math.log(rate / (1 - rate))])}
    found = adapt(loss, START, {"w", "b"}, 4, by_gates(own), first_order=True)
    wanted = adapt(loss, START, {"w", "b"}, 4, sgd(rate))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_numbers_of_all_sizes_are_seen_as_size_and_sign(float64: None) -> None:
    below = math.exp(-10) * (1 - 1e-12)
    x = torch.tensor([math.exp(-5), -math.exp(-5), 1.0, math.exp(-10), below, -math.exp(-11), 0.0])
    wanted = [[-0.5, 1], [-0.5, -1], [0, 1], [-1, 1], [-1, 1], [-1, -math.exp(-1)], [-1, 0]]
    torch.testing.assert_close(size_and_sign(x, 10), torch.tensor(wanted))


def test_one_step_by_hand(float64: None) -> None:
    own = gates(1)
    theta, g, value = torch.tensor([0.3]), torch.tensor([-0.02]), torch.tensor(1.7)
    rule = by_gates(own)
    state = _State(*(torch.tensor([[each]]) for each in (0.1, -0.2, 4.0, -3.0)), own)
    fast, after = rule.update(1, {"w": theta}, {"w": g}, value, state)
    seen = torch.tensor([math.log(1.7) / 10, 1.0, math.log(0.02) / 10, -1.0, 0.1])
    i, f, new, o = own["into"] @ seen + own["into_bias"]
    c = f.sigmoid() * -0.2 + i.sigmoid() * new.tanh()
    h = o.sigmoid() * c.tanh()
    keep = own["forget"] @ torch.tensor([float(h), 0.3, 4.0]) + own["forget_bias"]
    take = own["enter"] @ torch.tensor([float(h), 0.3, -3.0]) + own["enter_bias"]
    torch.testing.assert_close(fast["w"], keep.sigmoid() * 0.3 + take.sigmoid() * 0.02)
    torch.testing.assert_close(torch.cat([*after[:4]]).flatten(), torch.stack([h, c, keep[0], take[0]]))


def test_all_numbers_share_the_gates_and_none_sees_another(float64: None) -> None:
    """Numbers in another order, as another tensor's, come out in that order."""
    g, theta, order, value = torch.randn(6), torch.randn(6), torch.randperm(6), torch.tensor(0.5)
    rule, fast, mixed = by_gates(gates()), {"w": theta}, {"a": theta[order][:2], "b": theta[order][2:].view(2, 2)}
    state, other = rule.init(fast), rule.init(mixed)
    for step in range(3):
        fast, state = rule.update(step, fast, {"w": g}, value, state)
        turned = {"a": g[order][:2], "b": g[order][2:].view(2, 2)}
        mixed, other = rule.update(step, mixed, turned, value, other)
    torch.testing.assert_close(torch.cat([mixed["a"], mixed["b"].flatten()]), fast["w"][order])


def test_the_gradient_is_that_with_gradients_and_losses_held_fixed(float64: None) -> None:
    own = {name: value.requires_grad_() for name, value in gates().items()}
    start = {name: value.clone().requires_grad_() for name, value in START.items()}
    rule, recorded = by_gates(own), []

    def recording(step: int, fast: Parameters, gradients: Parameters, value: Tensor, state: Any) -> Any:
        recorded.append((gradients, value))
        return rule.update(step, fast, gradients, value, state)

    fast = adapt(loss, start, {"w", "b"}, 3, rule._replace(update=recording), first_order=True)
    inputs = [*own.values(), *start.values()]
    gradient = flat(torch.autograd.grad(loss(fast, 0), inputs))
    assert all(not each.requires_grad for gradients, value in recorded for each in (*gradients.values(), value))
    direction = torch.randn_like(gradient)
    parts = [
        part.view_as(each) for part, each in zip(direction.split([i.numel() for i in inputs]), inputs, strict=True)
    ]

    def replayed(by: float) -> float:
        moved = [each.detach() + by * part for each, part in zip(inputs, parts, strict=True)]
        rule = by_gates(dict(zip(own, moved, strict=False)))
        fast = dict(zip(start, moved[len(own) :], strict=True))
        state = rule.init(fast)
        for step, (gradients, value) in enumerate(recorded):
            fast, state = rule.update(step, fast, gradients, value, state)
        return loss(fast, 0).item()

    measured = (replayed(1e-6) - replayed(-1e-6)) / 2e-6
    assert measured == pytest.approx(float(gradient @ direction), rel=1e-6)


def test_everything_adapts_from_gates_as_the_paper_starts_them() -> None:
    built, some = algorithm("metalstm", "support"), episodes()
    keep, take = built.net.gates.forget_bias.sigmoid(), built.net.gates.enter_bias.sigmoid()
    assert 0.98 < keep.item() < 0.994 and 0.006 < take.item() < 0.019
    fast = built._fast_weights(
        built.net, dict(built.net.named_parameters()), some.support._replace(x=some.support.x[0], y=some.support.y[0])
    )
    for name, value in built.net.named_parameters():
        assert torch.equal(fast[name], value) == name.startswith("gates."), name
