"""Learned optimizers: closed forms on quadratics, the way back against autograd, and what a cut leaves as it is."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Pixels
from torch import Tensor, nn
from torch.func import functional_call

from fsl_cli.algorithms.l2l import L2L
from fsl_cli.algorithms.learned_optimizer.coordinatewise import CoordinateLSTM
from fsl_cli.backbones.mlp import MLP
from fsl_cli.cli import run
from fsl_cli.data.sampler import Shape
from fsl_cli.data.sources.quadratics import quadratics
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import Episodes, Examples
from fsl_cli.errors import UserError
from fsl_cli.experiment.optimizers import HAND_MADE

CPU = torch.device("cpu")


def some(count: int = 3, rows: int = 4, variables: int = 3) -> Episodes:
    tasks = quadratics(variables).tasks({"train": Shape(1, rows, rows)})
    [episodes] = tasks.gather(Batch("train", 0, [*range(count)]), CPU)
    return episodes


def built(steps: int = 6, segment: int = 3, **more: Any) -> L2L:
    torch.manual_seed(0)
    usual: dict[str, Any] = {"hidden": 4, "preprocessing": 10.0, "step_scale": 0.1, "bias": False}
    return L2L(Pixels(3, 1, 1), 1, steps, steps, segment, **(usual | more))


class Down(CoordinateLSTM):
    """What is learned, replaced by a step of -rate * gradient."""

    rate = 0.01

    def forward(self, gradient: Tensor, state: Any) -> Any:
        return -self.rate * gradient, state, []


def test_a_task_is_a_function_of_its_weights_and_the_queries_are_the_same(float64: None) -> None:
    tasks = quadratics(3).tasks({"test": Shape(1, 4, 4)})
    [episodes] = tasks.gather(Batch("test", 0, [*range(2000)]), CPU)
    [again] = tasks.gather(Batch("test", 0, [7]), CPU)
    assert torch.equal(again.support.x[0], episodes.support.x[7])
    assert episodes.query == episodes.support and episodes.support.x.shape == (2000, 4, 3)
    numbers = torch.cat([episodes.support.x, episodes.support.y], 2) / 2  # the root of four rows
    assert float(numbers.mean()) == pytest.approx(0, abs=0.02) and float(numbers.std()) == pytest.approx(1, abs=0.02)
    theta = torch.randn(3)
    f = (numbers[7, :, :3] @ theta - numbers[7, :, 3]).square().sum()
    problems = built().problems(Examples(episodes.support.x[7:8], episodes.support.y[7:8]))
    assert float(problems.losses(theta[None])) == pytest.approx(float(f), rel=1e-12)


def test_what_steps_down_the_gradient_goes_the_way_of_linear_algebra(float64: None) -> None:
    """theta_t - theta* = (I - 2 rate W'W)^t (theta_0 - theta*); and it is what SGD of this rate does."""
    model, support = built(), some().support
    model.optimizer = Down(4, 10.0, 0.1)
    problems = model.problems(support)
    down = list(problems.descent(6, model.optimizer))
    w, y = support.x / 2, support.y / 2
    best = torch.linalg.lstsq(w, y).solution.squeeze(-1)
    shrink = torch.eye(3) - 2 * Down.rate * w.mT @ w
    away = torch.linalg.matrix_power(shrink, 6) @ (problems.start - best).unsqueeze(-1)
    torch.testing.assert_close(down[6].theta, best + away.squeeze(-1), rtol=1e-12, atol=1e-12)
    by_hand = list(problems.descent(6, lambda theta: HAND_MADE["SGD"](theta, lr=Down.rate)))
    torch.testing.assert_close(by_hand[6].theta, down[6].theta, rtol=1e-12, atol=1e-12)
    said = model.eval().adapt(support)(support.x)
    torch.testing.assert_close((said - support.y).square().mean((1, 2)), down[6].loss, rtol=1e-12, atol=0)


def test_an_output_of_zero_moves_nothing(float64: None) -> None:
    model, episodes = built(), some()
    nn.init.zeros_(model.optimizer.out)
    nn.init.zeros_(model.optimizer.out_bias)
    start = model.problems(episodes.support, model._starts([0, 1, 2]))
    assert model.loss(episodes).item() == pytest.approx(float(start.losses(start.start).mean()), rel=1e-12)


def as_torch(model: CoordinateLSTM) -> tuple[nn.LSTM, nn.Linear]:
    """The same network as layers of torch, whose gates are in another order."""
    lstm = nn.LSTM(model.weights[0].shape[1] - model.hidden, model.hidden, 2)
    for layer in range(2):
        order = [0, 1, 3, 2]
        weight, bias = (
            torch.cat([each.detach().chunk(4)[i] for i in order])
            for each in (model.weights[layer], model.biases[layer])
        )
        inputs = weight.shape[1] - model.hidden
        for name, value in (("ih", weight[:, :inputs]), ("hh", weight[:, inputs:])):
            getattr(lstm, f"weight_{name}_l{layer}").data = value.clone()
        getattr(lstm, f"bias_ih_l{layer}").data = bias.squeeze(1)
        getattr(lstm, f"bias_hh_l{layer}").data.zero_()
    out = nn.Linear(model.hidden, 1)
    out.weight.data, out.bias.data = model.out.detach().clone(), model.out_bias.detach().view(1)
    return lstm, out


@pytest.mark.parametrize("preprocessing", [0.0, 10.0])
def test_loss_and_gradient_are_those_of_torchs_lstm_with_gradients_held_fixed(
    preprocessing: float, float64: None
) -> None:
    """Six steps and one more, in segments of three: each begins with what the one before left, as numbers."""
    model, episodes = built(7, 3, preprocessing=preprocessing), some()
    w, y = episodes.support.x / 2, episodes.support.y.squeeze(-1) / 2
    lstm, out = as_torch(model.optimizer)
    theta, state, total = model._starts([0, 1, 2]), None, torch.zeros(())

    def f(theta: Tensor) -> Tensor:
        return ((w @ theta.unsqueeze(-1)).squeeze(-1) - y).square().sum()

    for step in range(7):
        if step % 3 == 0:
            theta, state = theta.detach(), state and (state[0].detach(), state[1].detach())
        at = theta.detach().requires_grad_()
        [g] = torch.autograd.grad(f(at), at)
        seen = g.flatten()
        if preprocessing:
            large = seen.abs() >= math.exp(-10)
            seen = torch.stack(
                [
                    torch.where(large, seen.abs().log() / 10, -1.0),
                    torch.where(large, seen.sign(), math.exp(10) * seen),
                ],
                1,
            )
        else:
            seen = seen.unsqueeze(1)
        moved, state = lstm(seen.unsqueeze(0), state)
        theta = theta + 0.1 * out(moved[0]).view(3, 3)
        total = total + f(theta) / 3 / 7
    wanted = torch.autograd.grad(total, [*lstm.parameters(), *out.parameters()])
    loss = model.loss(episodes)
    torch.testing.assert_close(loss, total)
    loss.backward()
    theirs = dict(zip([name for name, _ in lstm.named_parameters()], wanted, strict=False))
    for layer in range(2):
        weight = torch.cat([theirs[f"weight_ih_l{layer}"], theirs[f"weight_hh_l{layer}"]], 1)
        for mine, their in (
            (model.optimizer.weights[layer], weight),
            (model.optimizer.biases[layer], theirs[f"bias_ih_l{layer}"]),
        ):
            i, f_, new, o = their.view(4, model.optimizer.hidden, -1)
            torch.testing.assert_close(mine.grad, torch.cat([i, f_, o, new]).view_as(mine))
    torch.testing.assert_close(model.optimizer.out.grad, wanted[-2])
    torch.testing.assert_close(model.optimizer.out_bias.grad, wanted[-1].view(1, 1))


def test_where_the_way_back_is_cut_changes_the_gradient_and_no_step(float64: None) -> None:
    found = []
    for segment in (3, 6):
        model = built(6, segment)
        loss = model.loss(some())
        loss.backward()
        found.append((loss.item(), model.optimizer.weights[1].grad))
    assert found[0][0] == found[1][0]  # weights and states are carried on, to the bit
    assert not torch.allclose(found[0][1], found[1][1], rtol=1e-3)


def test_every_number_has_a_state_of_its_own_and_none_sees_another(float64: None) -> None:
    model = built().optimizer
    gradients, order = torch.randn(3, 2, 4), torch.randperm(8)
    state, other = model.start(gradients[0]), model.start(gradients[0])
    for gradient in gradients:
        moved, state, _ = model(gradient, state)
        turned, other, _ = model(gradient.flatten()[order], other)
    assert len(set(moved.flatten().tolist())) == 8
    torch.testing.assert_close(turned, moved.flatten()[order], rtol=1e-12, atol=1e-12)


def test_a_small_network_is_a_problem_in_its_own_weights(float64: None) -> None:
    torch.manual_seed(0)
    model = L2L(MLP(1, 3, "none", [5], activation="sigmoid"), 2, 4, 4, 2, hidden=4)
    support = Examples(torch.rand(2, 6, 1, 3, 3), torch.tensor([[0, 0, 0, 1, 1, 1]] * 2))
    starts = model._starts([3, 4])
    problems = model.problems(support, starts)
    for place, value in enumerate(problems.losses(starts)):
        own = {name: each[place] for name, each in problems.named(starts).items()}
        logits = functional_call(model.net, own, (support.x[place],))
        torch.testing.assert_close(value, nn.functional.cross_entropy(logits, support.y[place]))
    assert torch.equal(starts[1], model._starts([4])[0]) and not torch.equal(starts[0], starts[1])
    weight = model.net.backbone.layers[0].weight
    assert float(problems.named(starts)["backbone.layers.0.weight"].std()) == pytest.approx(
        float(weight.std()), rel=0.2
    )


SMALL = ["steps=4", "val_every=2", "val_episodes=2", "episodes=6", "meta_batch=2", "trainer=cpu", "algo.inner_steps=10"]


def test_a_test_stands_beside_tuned_optimizers_and_the_picture_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["train", "algo=l2l", "data=quadratics", f"out={tmp_path}", *SMALL])
    [folder] = tmp_path.glob("l2l-quadratics-*/*")
    result = json.loads((folder / "result.json").read_text())
    found = result["optimizers"]
    assert (found["problems"], found["steps"]) == (6, [2, 5, 10, 20])
    assert found["L2L"]["loss"][2] == pytest.approx(result["mean"], rel=1e-5)
    for name in HAND_MADE:
        assert found[name]["less"][1] == pytest.approx(found[name]["loss"][1] - found["L2L"]["loss"][1], rel=1e-6)
    assert not (folder / "tasks.png").exists()
    capsys.readouterr()
    run(["show", "optimizers", f"run={folder}", "upto=15"])
    picture = folder / "shown" / "quadratics-1w10s" / "optimizers.png"
    assert "loss after 2, 5, 10 steps, mean of 6 problems" in capsys.readouterr().out
    assert picture.stat().st_size > 10000
    rows = list(csv.DictReader(picture.with_suffix(".csv").read_text().splitlines()))
    assert len(rows) == 16 and float(rows[10]["Adam"]) == pytest.approx(found["Adam"]["loss"][2], rel=1e-5)
    for words, said in (
        (["show", "fit", f"run={folder}"], "functions of too many variables to be drawn.*fsl show optimizers"),
        (["check", "algo=l2l", "data=quadratics", "query=5"], "query=5: a task of data=quadratics.*Type query=10"),
    ):
        with pytest.raises(UserError, match=said):
            run(words)
