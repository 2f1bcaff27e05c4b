"""Small tasks go side by side on a CPU, and come to what they come to one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import seen, settings
from test_algorithms import CPU, flat
from torch import Tensor, nn
from torch.func import functional_call

import fsl_cli.algorithms.over_tasks
from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.inner_loop import Parameters
from fsl_cli.algorithms.over_tasks import for_each_task, mean_loss
from fsl_cli.data.sampler import Shape
from fsl_cli.data.sources.sinusoid import sinusoid
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import Episodes
from fsl_cli.experiment.method import learner

NAMES = ("maml", "fomaml", "anil", "boil", "reptile", "cavia", "metasgd", "mamlpp", "joint")
RATE = dict.fromkeys(("fomaml", "anil", "boil", "mamlpp"), ("algo.inner_lr=0.001",))  # no recipe gives them one
CHECKPOINTED = ("maml", "fomaml", "boil", "metasgd", "mamlpp")


def regression(name: str, *words: str) -> Algorithm:
    config = settings([f"algo={name}", "data=sinusoid", "backbone.widths=[40,40]", *words, *RATE.get(name, ())])
    built = learner(config, seen(1, 1)).algorithm
    with torch.no_grad():
        for label, parameter in built.named_parameters():  # the authors' start has most units switched off
            if "rates" not in label:
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return built


def curves(count: int, first: int = 0) -> Episodes:
    [some] = (
        sinusoid().tasks({"train": Shape(1, 10, 10)}).gather(Batch("train", 0, [*range(first, first + count)]), CPU)
    )
    return some


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was handed to vmap."""
    found: list[Any] = []
    real = fsl_cli.algorithms.over_tasks.vmap
    monkeypatch.setattr(
        fsl_cli.algorithms.over_tasks, "vmap", lambda function, **how: found.append(function) or real(function, **how)
    )
    return found


@pytest.mark.parametrize("name", NAMES)
def test_loss_gradient_and_predictions_are_those_of_one_by_one(
    name: str, float64: None, mapped: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, calls = [], []
    for small in (fsl_cli.algorithms.over_tasks.SMALL, 0):
        monkeypatch.setattr(fsl_cli.algorithms.over_tasks, "SMALL", small)
        built, some = regression(name), curves(3)
        loss = built.loss(some)
        gradient = flat(torch.autograd.grad(loss, list(built.parameters())))
        with torch.no_grad():
            results.append((loss, gradient, built.eval().adapt(some.support)(some.query.x)))
        calls.append(len(mapped))
    assert calls == [3, 3]  # loss, adaptation and predictions side by side, then nothing
    assert 0.01 < results[0][1].norm() < 1e4
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_processs_share_may_be_a_single_task(name: str, float64: None, mapped: list[Any]) -> None:
    """Which goes alone, and comes to the same but for rounding."""
    together = regression(name).loss(curves(3))
    alone = torch.stack([regression(name).loss(curves(1, first)) for first in range(3)]).mean()
    assert len(mapped) == 1
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_steps_that_are_built_again_go_one_by_one(name: str, float64: None, mapped: list[Any]) -> None:
    built, some, results = regression(name, "algo.inner_steps=3"), curves(3), []
    for built.checkpoint_inner in (True, False):
        assert not mapped
        loss = built.loss(some)
        results.append((loss, flat(torch.autograd.grad(loss, list(built.parameters())))))
        fast = built.adapt(some.support)
    assert len(mapped) == 2 and fast(some.query.x).shape == (3, 10, 1)
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


def calls(net: nn.Linear, x: Tensor, one_by_one: bool = False) -> tuple[int, int]:
    """How often a task's function is called for the tasks x, by each of the two that map."""
    seen: list[Parameters] = []

    def loss(own: nn.Module, parameters: Parameters, x: Tensor) -> Tensor:
        seen.append(parameters)
        return functional_call(own, parameters, (x,)).square().mean()

    parameters = dict(net.named_parameters())
    mean_loss(net, loss, parameters, x, one_by_one=one_by_one)
    first = len(seen)
    for_each_task(net, lambda own, x: loss(own, parameters, x), x, one_by_one=one_by_one)
    return first, len(seen) - first


def test_numbers_of_a_task_times_those_of_the_network_decide() -> None:
    net = nn.Linear(32, 31)  # 1023 numbers
    assert calls(net, torch.randn(5, 32, 32)) == (1, 1)
    assert calls(net, torch.randn(5, 33, 32)) == (5, 5)
    assert calls(net, torch.randn(50, 32, 32)) == (1, 1)  # however many tasks there are
    assert calls(net, torch.randn(2, 2, 32), one_by_one=True) == (2, 2)


def test_fast_weights_do_not_count_as_numbers_of_a_task() -> None:
    net, seen = nn.Linear(100, 100), []
    fast = {name: value.expand(3, *value.shape) for name, value in net.named_parameters()}

    def function(own: nn.Module, fast: Parameters, x: Tensor) -> Tensor:
        seen.append(x)
        return functional_call(own, fast, (x,))

    x = torch.randn(3, 1, 100)
    torch.testing.assert_close(for_each_task(net, function, fast, x), net(x))
    assert len(seen) == 1
