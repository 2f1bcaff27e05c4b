"""Reptile against a plain torch loop: the gradient is theta - phi, Adam's squares go on, no graph stays."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from conftest import settings
from test_algorithms import episodes
from torch import Tensor
from torch.func import functional_call

from fsl_cli.algorithms import reptile
from fsl_cli.algorithms.inner_loop import Parameters, adam, adapt
from fsl_cli.algorithms.reptile import Reptile, minibatches
from fsl_cli.cli import run
from fsl_cli.episodes import Episodes, task_loss
from fsl_cli.experiment.schedule import schedule
from fsl_cli.settings.binding import build

STEPS, SIZE, LR = 4, 5, 0.01


pytestmark = pytest.mark.usefixtures("float64")


def built(*words: str) -> Reptile:
    torch.manual_seed(0)
    own = [f"algo.inner_steps={STEPS}", f"algo.inner_batch={SIZE}", f"algo.inner_lr={LR}", "algo.test_steps=3"]
    config = settings(["algo=reptile", "way=3", "backbone.filters=8", *own, *words])
    algorithm = build(config.algo, backbone=build(config.backbone, channels=1, size=16))
    assert isinstance(algorithm, Reptile)
    return algorithm


def by_hand(
    algorithm: Reptile, some: Episodes, task: int, kept: dict | None = None, rule: str = "adam"
) -> list[Tensor]:
    """phi of one task by torch's optimizer, its Adam state taken from `kept` and left there."""
    net = copy.deepcopy(algorithm.net)
    if rule == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(net.parameters(), LR, betas=(0.0, 0.999))
    else:
        optimizer = torch.optim.SGD(net.parameters(), LR)
    if kept:
        optimizer.load_state_dict(kept)
    for batch in minibatches(int(some.index[task]), some.support.x.shape[1], SIZE, STEPS):
        optimizer.zero_grad()
        task_loss(net(some.support.x[task, batch]), some.support.y[task, batch]).backward()
        optimizer.step()
    if kept is not None:
        kept.update(copy.deepcopy(optimizer.state_dict()))
    return [parameter.detach() for parameter in net.parameters()]


@pytest.mark.parametrize("rule", ["adam", "sgd"])
def test_the_gradient_is_theta_minus_phi_of_a_plain_loop(rule: str) -> None:
    algorithm, some = built(f"algo.inner_rule={rule}"), episodes(3, first=7)
    phis = [by_hand(algorithm, some, task, rule=rule) for task in range(3)]
    loss = algorithm.loss(some)
    loss.backward()
    for parameter, *phi in zip(algorithm.net.parameters(), *phis, strict=True):
        torch.testing.assert_close(parameter.grad, parameter.detach() - torch.stack(phi).mean(0), rtol=1e-9, atol=1e-10)
    distances = [(p - q).square().sum() for phi in phis for p, q in zip(algorithm.net.parameters(), phi, strict=True)]
    torch.testing.assert_close(loss, torch.stack(distances).sum() / 6)


def test_a_step_of_the_chosen_optimizer_moves_theta_towards_the_mean_phi() -> None:
    config = settings(["algo=reptile", "optim.lr=0.3"])
    algorithm, some = built(), episodes(2)
    theta = [parameter.detach().clone() for parameter in algorithm.net.parameters()]
    phis = [by_hand(algorithm, some, task) for task in range(2)]
    optimizer = build(config.optim, params=list(algorithm.parameters()))
    algorithm.loss(some).backward()
    optimizer.step()
    for parameter, old, *phi in zip(algorithm.net.parameters(), theta, *phis, strict=True):
        torch.testing.assert_close(parameter, old + 0.3 * (sum(phi) / 2 - old), rtol=1e-9, atol=1e-10)


def test_the_serial_version_equals_one_adam_kept_over_all_tasks() -> None:
    algorithm, kept = built(), {}
    for number in range(3):
        some = episodes(1, first=number)
        phi = by_hand(algorithm, some, 0, kept)
        loss = algorithm.loss(some)
        gradients = torch.autograd.grad(loss, list(algorithm.parameters()))
        with torch.no_grad():
            for parameter, gradient, expected in zip(algorithm.parameters(), gradients, phi, strict=True):
                torch.testing.assert_close(parameter - gradient, expected, rtol=1e-8, atol=1e-9)
                parameter -= gradient  # meta-step 1: theta becomes phi
    assert float(algorithm.weight) == pytest.approx(1 - 0.999 ** (3 * STEPS))


def test_a_meta_batch_carries_the_mean_of_its_squares() -> None:
    algorithm, some = built(), episodes(2)
    alone = []
    for task in range(2):
        single = copy.deepcopy(algorithm)
        single.loss(episodes(1, first=task))
        alone.append(single.square_head_weight)
    algorithm.loss(some)
    torch.testing.assert_close(algorithm.square_head_weight, torch.stack(alone).mean(0))
    assert algorithm.square_head_weight.abs().sum() > 0


def test_a_test_goes_on_from_the_squares_of_training_and_leaves_them() -> None:
    algorithm, kept = built(f"algo.test_steps={STEPS}", f"algo.test_batch={SIZE}"), {}
    some = episodes(1)  # number 0, whose minibatches are those of a test
    by_hand(algorithm, some, 0, kept)
    algorithm.loss(some)
    before = copy.deepcopy(algorithm.state_dict())
    net = copy.deepcopy(algorithm.net)
    for parameter, phi in zip(net.parameters(), by_hand(algorithm, some, 0, kept), strict=True):
        parameter.data = phi
    for _ in range(2):  # one test does not change the next
        logits = algorithm.eval().adapt(some.support)(some.query.x)[0]
        torch.testing.assert_close(logits, net(some.query.x[0], some.support.x[0]), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(algorithm.state_dict(), before, rtol=0, atol=0)


def test_no_graph_of_the_inner_steps_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def watched(net: torch.nn.Module, weights: Parameters, inputs: tuple[Tensor, ...]) -> Tensor:
        seen.extend(weights.values())
        return functional_call(net, weights, inputs)

    monkeypatch.setattr(reptile, "functional_call", watched)
    algorithm, some = built(), episodes(1)
    loss = algorithm.loss(some)
    assert len(seen) == STEPS * len(list(algorithm.parameters()))
    assert all(weight.grad_fn is None for weight in seen)
    waiting, reached = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in reached:
            reached.add(node)
            waiting += [earlier for earlier, _ in node.next_functions]
    assert len(reached) < 6 * len(list(algorithm.parameters()))  # the distance, and nothing of the steps before


def test_adam_equals_torchs() -> None:
    start = torch.randn(5, generator=torch.Generator().manual_seed(0))
    for betas in ((0.0, 0.999), (0.9, 0.99)):
        leaf = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([leaf], 0.05, betas=betas, eps=1e-6)
        for step in range(6):
            optimizer.zero_grad()
            ((step + 1) * leaf).sin().sum().backward()
            optimizer.step()
        rule = adam(0.05, *betas, eps=1e-6)
        fast = adapt(lambda p, step: ((step + 1) * p["w"]).sin().sum(), {"w": start}, {"w"}, 6, rule, first_order=True)
        torch.testing.assert_close(fast["w"].detach(), leaf.detach(), rtol=1e-10, atol=1e-12)


def test_adam_goes_on_from_squares_that_it_is_given() -> None:
    start, gradients = torch.ones(3), torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]])
    rule, zero = adam(0.1, beta1=0.0), torch.zeros(())  # the loss, which Adam does not look at
    whole, state = {"w": start}, rule.init({"w": start})
    for step in range(2):
        whole, state = rule.update(step, whole, {"w": gradients[step]}, zero, state)
    first, halfway = rule.update(0, {"w": start}, {"w": gradients[0]}, zero, rule.init({"w": start}))
    again = adam(0.1, beta1=0.0, squares=halfway[1:])
    second, _ = again.update(0, first, {"w": gradients[1]}, zero, again.init(first))
    torch.testing.assert_close(second["w"], whole["w"])


def test_minibatches_are_shuffled_passes_and_the_seed_alone_decides() -> None:
    torch.manual_seed(3)
    order = minibatches(5, n=10, size=4, steps=5)
    torch.manual_seed(4)
    assert torch.equal(minibatches(5, n=10, size=4, steps=5), order)
    assert not torch.equal(minibatches(6, n=10, size=4, steps=5), order)
    passes = order.view(2, 10)  # the third minibatch ends the first pass and begins the second
    assert passes.sort().values.tolist() == [[*range(10)]] * 2
    assert passes[0].tolist() != passes[1].tolist()
    assert minibatches(0, n=3, size=6, steps=2).view(4, 3).sort().values.tolist() == [[0, 1, 2]] * 4
    assert minibatches(0, n=3, size=6, steps=0).shape == (0, 6)


def test_the_meta_step_falls_in_a_straight_line() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 2.0)
    line = schedule(optimizer, "linear", steps=4)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        line.step()
    assert rates == [2.0, 1.5, 1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ((5, 1), {"inner_lr": 0.001, "inner_steps": 5, "inner_batch": 10, "test_batch": 5, "steps": 100000}),
        ((5, 5), {"inner_lr": 0.001, "inner_steps": 5, "inner_batch": 10, "test_batch": 5, "steps": 100000}),
        ((20, 1), {"inner_lr": 0.0005, "inner_steps": 10, "inner_batch": 20, "test_batch": 10, "steps": 200000}),
    ],
)
def test_the_authors_settings_on_omniglot_come_without_being_asked_for(task: tuple[int, int], expected: dict) -> None:
    values = settings(["algo=reptile", "data=omniglot", f"way={task[0]}", f"shot={task[1]}"])
    common = {"train_shot": 10, "meta_batch": 5, "test_steps": 50, "norm": "support"}
    for key, value in {**expected, **common}.items():
        assert values.algo.get(key, getattr(values, key, None)) == value, key
    assert (values.optim.target, values.optim.get("lr")) == ("torch.optim.SGD", 1.0)
    assert (values.schedule.get("kind"), values.schedule.get("steps")) == ("linear", values.steps)


def test_the_authors_settings_on_miniimagenet_come_without_being_asked_for() -> None:
    for shot, batch in ((1, 5), (5, 15)):
        values = settings(["algo=reptile", "data=miniimagenet", f"shot={shot}"])
        inner = [values.algo.get(key) for key in ("inner_lr", "inner_steps", "inner_batch", "test_steps", "test_batch")]
        assert inner == [0.001, 8, 10, 50, batch]
        assert (values.train_shot, values.steps, values.backbone.get("filters")) == (15, 100000, 32)


def test_another_outer_optimizer_can_be_typed() -> None:
    values = settings(["algo=reptile", "data=omniglot", "optim=adam"])
    assert values.optim.target == "torch.optim.Adam"


def test_a_regression_runs_from_training_to_the_picture(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    words = ["steps=20", "val_every=20", "val_episodes=4", "episodes=6", "trainer=cpu"]
    run(["train", "algo=reptile", "data=sinusoid", f"out={tmp_path}", *words])
    (folder,) = tmp_path.glob("reptile-sinusoid-*/*")
    assert json.loads((folder / "result.json").read_text())["metric"] == "mse"
    assert (folder / "tasks.png").exists()


@pytest.mark.parametrize("count", [1, 11])
def test_with_query_a_query_is_normalised_by_the_support_set_and_itself(count: int) -> None:
    """Against the network on each set of support images and one query, whose last logits count."""
    plain, own, some = (built("norm=support"), built("norm=support", "algo.with_query=true"), episodes())
    queries = torch.cat([some.query.x] * 2, 1)[:, :count]
    found = own.eval().adapt(some.support)(queries)
    [order] = own._orders([0], some.support)
    for task in range(2):
        support = type(some.support)(some.support.x[task], some.support.y[task])
        phi = own._train_on(own.net, support, order, own._carried())[0]
        for number, query in enumerate(queries[task]):
            logits = functional_call(own.net, phi, (torch.cat([support.x, query[None]]),))
            torch.testing.assert_close(found[task, number], logits[-1])
    assert not torch.allclose(plain.eval().adapt(some.support)(queries), found)
