"""Meta-SGD's learned rates: where they start, what they do, and that gradients reach them."""

from __future__ import annotations

import pytest
import torch
from conftest import seen, settings
from test_algorithms import GRADIENT_NORMS, ROWS, SMALL_MAML, algorithm, episodes, flat

from fsl_cli.algorithms.inner_loop import adapt
from fsl_cli.algorithms.metasgd import at_rates
from fsl_cli.experiment.method import learner


@pytest.mark.parametrize("norm", GRADIENT_NORMS)
def test_with_all_rates_equal_it_is_maml(norm: str, float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, "metasgd", ROWS["metasgd"]._replace(overrides=SMALL_MAML))  # a single number
    own, maml, some = algorithm("metasgd", norm), algorithm("maml", norm), episodes()
    assert {name for name, _ in own.net.named_parameters() if not name.startswith("rates")} == {
        name for name, _ in maml.net.named_parameters()
    }
    losses = [built.loss(some) for built in (own, maml)]
    weights = [own.net.get_parameter(name) for name, _ in maml.net.named_parameters()]
    gradients = torch.autograd.grad(losses[0], weights), torch.autograd.grad(losses[1], list(maml.parameters()))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
    torch.testing.assert_close(*map(flat, gradients), rtol=1e-9, atol=1e-12)
    logits = [built.eval().adapt(some.support)(some.query.x) for built in (own, maml)]
    torch.testing.assert_close(*logits, rtol=1e-9, atol=1e-12)


def test_a_rate_is_an_elements_own_and_may_be_negative() -> None:
    """w - a * g on w^2 / 2, so w * (1 - a); the loss sum(w'^2) / 2 has the gradient -w^2 (1 - a) with respect to a."""
    w = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([0.5, -0.25, 0.0], dtype=torch.float64, requires_grad=True)
    fast = adapt(lambda p, step: p["w"].square().sum() / 2, {"w": w}, {"w"}, 1, at_rates({"w": a}))
    torch.testing.assert_close(fast["w"], torch.tensor([0.5, -2.5, 3.0], dtype=torch.float64))
    (fast["w"].square().sum() / 2).backward()
    torch.testing.assert_close(a.grad, -(w.detach() ** 2) * (1 - a.detach()))


def test_every_number_that_adapts_has_a_rate_and_all_start_from_one_draw() -> None:
    starts = []
    for seed in (0, 1, 0):
        built = learner(settings(["algo=metasgd", f"seed={seed}"]), seen(1, 28)).algorithm
        adapted = [value for name, value in built.net.named_parameters() if name[:5] != "rates" and "norm" not in name]
        assert [rate.shape for rate in built.net.rates] == [value.shape for value in adapted]
        assert all(isinstance(rate, torch.nn.Parameter) for rate in built.net.rates)
        values = flat(tuple(built.net.rates)).detach().unique()
        assert len(values) == 1 and 0.005 <= float(values) <= 0.1
        starts.append(float(values))
    assert starts[0] == starts[2] != starts[1]


def test_steps_that_are_built_again_give_the_rates_the_same_gradient(float64: None) -> None:
    built, some = algorithm("metasgd", "support"), episodes()
    gradients = []
    for built.checkpoint_inner in (False, True):
        gradients.append(flat(torch.autograd.grad(built.loss(some), list(built.net.rates))))
    assert gradients[0].norm() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-12)
