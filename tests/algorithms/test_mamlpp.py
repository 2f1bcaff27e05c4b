"""MAML++: each of its changes does what it should, and without them it is MAML."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import seen, settings, tiny_tasks
from test_algorithms import (
    GRADIENT_NORMS,
    ROWS,
    SMALL_MAML,
    algorithm,
    compare_one_by_one_with_side_by_side,
    episodes,
    flat,
    shift,
)

from fsl_cli.algorithms.mamlpp import importance
from fsl_cli.episodes import Episodes
from fsl_cli.experiment.datamodule import Episodic
from fsl_cli.experiment.method import learner
from fsl_cli.experiment.trainer import new_trainer, quiet

OFF = {"multi_step": 0, "learn_rates": "false", "per_step_norm": "false", "first_order": 0}


@pytest.fixture
def mamlpp(monkeypatch: pytest.MonkeyPatch) -> Any:
    """MAML++ with all off but what is given, at the start of training."""

    def make(norm: str = "support", **on: Any) -> Any:
        words = [f"algo.{key}={value}" for key, value in (OFF | on).items()]
        monkeypatch.setitem(ROWS, "mamlpp", ROWS["mamlpp"]._replace(overrides=(*SMALL_MAML, *words)))
        built = algorithm("mamlpp", norm)
        built.progress = 0.0
        return built

    return make


def gradient(built: Any, some: Episodes) -> torch.Tensor:
    """Of the weights, without the rates, in the order of MAML's."""
    weights = [value for name, value in built.net.named_parameters() if not name.startswith("rates")]
    return flat(torch.autograd.grad(built.loss(some), weights))


@pytest.mark.parametrize("norm", GRADIENT_NORMS)
def test_with_all_off_it_is_maml(mamlpp: Any, norm: str, float64: None) -> None:
    own, maml, some = mamlpp(norm), algorithm("maml", norm), episodes()
    torch.testing.assert_close(own.loss(some), maml.loss(some), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(own, some), gradient(maml, some), rtol=1e-9, atol=1e-12)
    logits = [built.eval().adapt(some.support)(some.query.x) for built in (own, maml)]
    torch.testing.assert_close(*logits, rtol=1e-9, atol=1e-12)


def test_the_weights_of_the_steps_sum_to_one_and_anneal_to_the_last() -> None:
    assert importance(5, 0.0) == pytest.approx([0.2] * 5)
    assert importance(5, 0.3) == pytest.approx([0.14, 0.14, 0.14, 0.14, 0.44])  # as theirs in epoch 3 of 10
    assert importance(5, 0.99) == pytest.approx([0.006] * 4 + [0.976])  # not less than 0.03 / 5, as theirs
    assert importance(5, 1.0) == importance(5, 7.5) == [0, 0, 0, 0, 1]
    assert importance(1, 0.5) == [1]
    lasts = [importance(5, t / 50)[-1] for t in range(60)]
    assert lasts == sorted(lasts)
    assert all(sum(importance(steps, t / 50)) == pytest.approx(1) for steps in range(1, 8) for t in range(60))


def test_multi_step_counts_the_loss_after_every_step_at_first(mamlpp: Any, float64: None) -> None:
    own, maml, some = mamlpp(multi_step=0.5), algorithm("maml", "support"), episodes()
    after = []
    for maml.inner_steps in (1, 2):
        after.append(maml.loss(some))
    for own.progress, first, last in ((0.0, 0.5, 0.5), (0.25, 0.25, 0.75), (0.5, 0.0, 1.0), (1.0, 0.0, 1.0)):
        torch.testing.assert_close(own.loss(some), first * after[0] + last * after[1], rtol=1e-12, atol=0)


def test_each_layer_has_a_rate_for_each_step(mamlpp: Any, float64: None) -> None:
    own, some = mamlpp(learn_rates="true"), episodes()
    assert len(own.net.rates) == len(own.adapted) == 4 + 2  # convolutions; the head's weight and bias
    assert all(torch.equal(rates, torch.full((2,), 0.4)) for rates in own.net.rates)
    maml = algorithm("maml", "support")
    torch.testing.assert_close(own.loss(some), maml.loss(some), rtol=1e-12, atol=0)  # while all are equal
    found = torch.autograd.grad(own.loss(some), list(own.net.rates))
    assert all((each != 0).all() for each in found)
    with torch.no_grad():
        for rates in own.net.rates:
            rates[1] = 0  # the second step stands still
    maml.inner_steps = 1
    torch.testing.assert_close(own.loss(some), maml.loss(some), rtol=1e-12, atol=0)


def test_each_norm_has_a_scale_and_shift_for_each_step(mamlpp: Any, float64: None) -> None:
    own, some = mamlpp(per_step_norm="true"), episodes()
    norms = [value for name, value in own.net.named_parameters() if "norm" in name]
    assert [value.shape for value in norms] == [(2, 8)] * 8
    torch.testing.assert_close(own.loss(some), algorithm("maml", "support").loss(some), rtol=1e-12, atol=0)
    found = torch.autograd.grad(own.loss(some), norms)
    assert all((each.abs().sum(1) > 0).all() for each in found)

    def logits(test_steps: int, row: int | None = None) -> torch.Tensor:
        """After so many steps, with the shifts of step `row` changed."""
        own.eval().test_steps = test_steps
        with torch.no_grad():
            for value in norms[1::2]:
                value.zero_()
                if row is not None:
                    value[row] = torch.linspace(-1, 1, 8)
            return own.adapt(some.support)(some.query.x)

    assert torch.equal(logits(1, row=1), logits(1))  # nothing of the second step before it
    for steps, row in ((0, 0), (1, 0), (2, 0), (2, 1), (3, 1)):
        assert not torch.allclose(logits(steps, row), logits(steps)), (steps, row)


def test_the_queries_after_a_step_pass_the_norms_of_that_step(mamlpp: Any, float64: None) -> None:
    """By hand: one step with the first row, the queries with the first; another with the second, the queries too."""
    own, some = mamlpp(per_step_norm="true", multi_step=1.0), episodes(1)
    with torch.no_grad():
        for name, value in own.net.named_parameters():
            if "norm" in name:
                value += 0.3 * torch.randn_like(value)
    maml = algorithm("maml", "support")
    maml.inner_steps, losses = 1, []
    start = dict(own.net.named_parameters())
    for step in range(2):
        row = {name: value[step] if "norm" in name else value for name, value in start.items()}
        maml.net.load_state_dict(row)
        losses.append(maml.loss(some))
        x, y = some.support.x[0], some.support.y[0]
        support_loss = torch.nn.functional.cross_entropy(maml.net(x), y)
        moves = [name for name in start if "norm" not in name]
        found = torch.autograd.grad(support_loss, [maml.net.get_parameter(name) for name in moves])
        start |= {name: row[name] - 0.4 * slope for name, slope in zip(moves, found, strict=True)}
    torch.testing.assert_close(own.loss(some), (losses[0] + losses[1]) / 2, rtol=1e-9, atol=0)


def test_derivatives_are_of_first_order_at_first(mamlpp: Any, float64: None) -> None:
    own, some = mamlpp(first_order=0.5), episodes()
    first, second = (gradient(algorithm(name, "support"), some) for name in ("fomaml", "maml"))
    for own.progress, expected in ((0.0, first), (0.49, first), (0.5, second), (1.0, second)):
        torch.testing.assert_close(gradient(own, some), expected, rtol=1e-9, atol=1e-12)


ALL_ON = {"multi_step": 0.5, "learn_rates": "true", "per_step_norm": "true"}


@pytest.mark.parametrize("norm", GRADIENT_NORMS)
def test_the_gradient_equals_finite_differences_while_every_step_counts(mamlpp: Any, norm: str, float64: None) -> None:
    built, some = mamlpp(norm, **ALL_ON), episodes()
    found = flat(torch.autograd.grad(built.loss(some), list(built.parameters())))
    direction = torch.randn_like(found)
    values = []
    for move in (1e-8, -1e-8):
        shift(built, move * direction)
        values.append(built.loss(some).item())
        shift(built, -move * direction)
    assert (values[0] - values[1]) / 2e-8 == pytest.approx(float(found @ direction), rel=1e-5)


@pytest.mark.parametrize("first_order", [0.0, 0.5])
@pytest.mark.parametrize("norm", GRADIENT_NORMS)
def test_one_by_one_equals_side_by_side_while_every_step_counts(
    mamlpp: Any, norm: str, first_order: float, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = mamlpp(norm, **ALL_ON, first_order=first_order)
    monkeypatch.setattr(type(built), "progress", 0.0)  # of the one that is built below
    compare_one_by_one_with_side_by_side("mamlpp", norm, monkeypatch)


def test_steps_that_are_built_again_give_the_same_gradient(mamlpp: Any, float64: None) -> None:
    built, some = mamlpp(**ALL_ON), episodes()
    gradients = []
    for built.checkpoint_inner in (False, True):
        gradients.append(flat(torch.autograd.grad(built.loss(some), list(built.parameters()))))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-12)


def test_the_learner_tells_how_much_is_done_in_a_resumed_training_too(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(["algo=mamlpp", "trainer=cpu", "train_way=3", "backbone.filters=8", "steps=8"])
    told: list[float] = []
    for start, end in ((0, 3), (3, 6)):
        built = learner(config, seen(1, 16))
        assert built.algorithm.progress == 1.0
        loss = built.algorithm.loss

        def noted(some: Episodes, built: Any = built, loss: Any = loss) -> torch.Tensor:
            told.append(built.algorithm.progress)
            return loss(some)

        monkeypatch.setattr(built.algorithm, "loss", noted)
        data = Episodic(tiny_tasks(), meta_batch=2, steps=8, val_every=8, episodes={"val": 2, "test": 2})
        with quiet():
            trainer = new_trainer(**config.trainer.values, max_steps=end, limit_val_batches=0)
            ckpt = tmp_path / "at.ckpt" if start else None
            trainer.fit(built, datamodule=data, ckpt_path=ckpt, weights_only=True)
            trainer.save_checkpoint(tmp_path / "at.ckpt")
    assert told == [0 / 8, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8]


def test_the_authors_settings_come_without_being_asked_for() -> None:
    omniglot, mini = (settings(["algo=mamlpp", f"data={data}"]) for data in ("omniglot", "miniimagenet"))
    assert [getattr(omniglot, key) for key in ("meta_batch", "query", "train_query", "steps")] == [8, 1, 1, 50000]
    assert [getattr(mini, key) for key in ("meta_batch", "query", "train_query", "steps")] == [2, 15, 15, 50000]
    assert (omniglot.backbone.get("filters"), mini.backbone.get("filters")) == (64, 48)
    assert (omniglot.schedule.get("kind"), mini.schedule.get("kind")) == ("cosine", "none")
    for values, rate, share in ((omniglot, 0.1, 0.1), (mini, 0.1, 0.15)):
        assert (values.backbone.get("slope"), values.algo.get("head_init")) == (0.01, "xavier")
        assert values.norm == "transductive" and values.optim.get("lr") == 0.001
        assert [values.algo.get(key) for key in ("inner_lr", "multi_step", "inner_steps")] == [rate, share, 5]
