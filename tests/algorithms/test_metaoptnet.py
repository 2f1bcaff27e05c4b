"""MetaOptNet's heads against scikit-learn and the formulas of its paper; label smoothing; its schedule."""

from __future__ import annotations

import pytest
import test_algorithms
import torch
from conftest import settings
from sklearn.svm import LinearSVC
from test_heads import Flat, episode

from fsl_cli.algorithms.metaoptnet import MetaOptNet, smoothed
from fsl_cli.errors import UserError
from fsl_cli.settings.binding import build

pytestmark = pytest.mark.usefixtures("float64")


def test_logits_are_the_scaled_scores_of_the_machine() -> None:
    algorithm, some = MetaOptNet(Flat(6), cost=0.3), episode([1, 5, 3])
    algorithm.scale.data.fill_(2.5)
    machine = LinearSVC(C=0.3, multi_class="crammer_singer", fit_intercept=False, tol=1e-9, max_iter=1_000_000)
    machine.fit(some.support.x[0].numpy(), some.support.y[0].numpy())
    expected = 2.5 * torch.from_numpy(machine.decision_function(some.query.x[0].numpy()))
    torch.testing.assert_close(algorithm.adapt(some.support)(some.query.x)[0], expected, rtol=1e-5, atol=1e-6)


def test_logits_of_ridge_by_the_dual() -> None:
    """(K + 50 I) a = 2 Y, scores q x'a (the authors' quadratic program)."""
    algorithm, some = MetaOptNet(Flat(6), head="ridge"), episode([2, 5, 3])
    x, y = some.support.x[0], torch.nn.functional.one_hot(some.support.y[0]).double()
    a = 2 * torch.linalg.inv(x @ x.T + 50 * torch.eye(10)) @ y
    torch.testing.assert_close(algorithm.adapt(some.support)(some.query.x)[0], some.query.x[0] @ x.T @ a)


@pytest.mark.parametrize("norm", ["running", "support"])
def test_the_gradient_through_ridge_and_smoothed_labels(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ("algo.head=ridge", "algo.penalty=0.1", "algo.smoothing=0.1")
    monkeypatch.setitem(test_algorithms.ROWS, "metaoptnet", test_algorithms.Row((norm,), overrides))
    test_algorithms.test_the_gradient_equals_finite_differences("metaoptnet", norm, None)


def test_smoothing_gives_the_other_classes_their_share() -> None:
    """0.1 of four ways: 0.9 to the right class, 0.1 / 3 to each other."""
    logits, y = torch.randn(2, 3, 4), torch.tensor([[0, 3, 2], [1, 1, 0]])
    wanted = torch.full((2, 3, 4), 0.1 / 3).scatter(2, y.unsqueeze(2), 0.9)
    expected = -(wanted * logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(smoothed(logits, y, 0.1), expected)


def test_only_training_smooths() -> None:
    some = episode([3, 3, 3])
    plain, smooth = (MetaOptNet(Flat(6), smoothing=share) for share in (0.0, 0.1))
    assert torch.equal(plain.adapt(some.support)(some.query.x), smooth.adapt(some.support)(some.query.x))
    assert plain.loss(some) != smooth.loss(some)


@pytest.mark.parametrize("word", ["cost=0", "penalty=-1.0", "smoothing=0.9"])
def test_settings_that_make_no_sense_are_refused(word: str) -> None:
    with pytest.raises(UserError, match=r"above 0|smoothing from 0 to 0.5"):
        build(settings(["algo=metaoptnet", f"algo.{word}"]).algo, backbone=Flat(6))


def test_the_authors_rates_on_miniimagenet() -> None:
    values = settings(["algo=metaoptnet", "data=miniimagenet", "way=5", "shot=1"])
    assert (values.train_shot, values.train_query, values.meta_batch) == (15, 6, 8)
    assert (values.algo.get("cost"), values.algo.get("smoothing")) == (0.1, 0.1)
    optimizer = build(values.optim, params=[torch.zeros(1, requires_grad=True)])
    schedule = build(values.schedule, optimizer=optimizer)
    edges = {
        0: 0.1,
        19999: 0.1,
        20000: 0.006,
        39999: 0.006,
        40000: 0.0012,
        49999: 0.0012,
        50000: 0.00024,
        59999: 0.00024,
    }
    assert {step: 0.1 * schedule.lr_lambdas[0](step) for step in edges} == pytest.approx(edges)
