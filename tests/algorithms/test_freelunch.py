"""Free Lunch: roots of covariances, the distribution that is drawn from, its limits, and all training images, once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Pixels
from sklearn.linear_model import LogisticRegression

from fsl_cli.algorithms.freelunch import FreeLunch, covariance_root
from fsl_cli.cli import run
from fsl_cli.episodes import Examples
from fsl_cli.errors import UserError

D = 4


def built(classes: int = 3, **more: float) -> tuple[FreeLunch, torch.Tensor]:
    """A method that has seen classes of 9 vectors each, and these."""
    made = FreeLunch(Pixels(D, 1, 1), classes, **more).eval()  # type: ignore[arg-type]
    features = torch.rand(classes, 9, D, generator=torch.Generator().manual_seed(1)).double() * (1 + torch.arange(D))
    made.prepare_classes(iter(features[..., None, None]))
    return made, features


@pytest.mark.parametrize("n", [1, 3, 9])
def test_a_root_is_one_of_the_covariance(n: int, float64: None) -> None:
    features = torch.randn(n, D)
    root = covariance_root(features)
    wanted = torch.cov(features.mT) if n > 1 else torch.zeros(D, D)
    torch.testing.assert_close(root.mT @ root, wanted)


def test_what_is_drawn_has_the_mean_and_the_covariance_of_the_paper(float64: None) -> None:
    made, base = built(spread=0.21)
    x = torch.rand(2, D)
    drawn = made.drawn(x, 200_000)
    for vector, own in zip(x, drawn, strict=True):
        near = (base.mean(1) - vector).square().sum(1).argsort()[:2]
        mean = (base.mean(1)[near].sum(0) + vector) / 3
        covariance = torch.stack([torch.cov(base[c].mT) for c in near]).mean(0) + 0.21  # in every entry
        torch.testing.assert_close(own.mean(0), mean, atol=0.01, rtol=0)
        torch.testing.assert_close(torch.cov(own.mT), covariance, atol=0.02, rtol=0.02)


def test_without_samples_it_is_logistic_regression_on_transformed_features(float64: None) -> None:
    made, _ = built(samples=0, penalty=2.0)
    x, y = torch.rand(1, 6, D), torch.tensor([[0, 1, 2, 0, 1, 2]])
    queries = torch.rand(1, 5, D)
    theirs = LogisticRegression(C=2.0, tol=1e-10, max_iter=1000).fit(x[0].sqrt(), y[0])
    found = made.adapt(Examples(x, y))(queries)[0].softmax(-1)
    np.testing.assert_allclose(found.numpy(), theirs.predict_proba(queries[0].sqrt()), atol=1e-5)


def test_features_below_zero_and_covariances_without_end_are_refused() -> None:
    x, y = torch.rand(1, 4, D) - 0.5, torch.tensor([[0, 1, 0, 1]])
    with pytest.raises(UserError, match="algo.power=1"):
        built()[0].adapt(Examples(x, y))
    made, _ = built(power=1.0, samples=10)
    assert made.float().adapt(Examples(x, y))(x).isfinite().all()
    with pytest.raises(UserError, match="covariances of 4,000 training classes, of 1,024 features, take 17 GB"):
        FreeLunch(Pixels(1024, 1, 1), 4000)


def test_all_training_rows_are_taken_in_without_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dice = np.random.default_rng(0)
    features = (np.repeat(4 * dice.random((12, 5)), 7, 0) + 0.2 * dice.random((84, 5))).astype(np.float32)
    names = np.repeat([f"c{i:02}" for i in range(12)], 7)
    split = np.repeat(np.repeat(["train", "val", "test"], [6, 2, 4]), 7)
    np.savez("a.npz", features=features, labels=names, split=split)
    words = ["data=embeddings", "data.root=a.npz", "way=3", "query=3", "episodes=5", "trainer=cpu", "algo.samples=20"]
    run(["test", "algo=freelunch", *words])
    [path] = Path("outputs").glob("*/*/checkpoints/best.ckpt")
    state = torch.load(path, weights_only=True)["state_dict"]
    wanted = features[:42].reshape(6, 7, 5).mean(1)
    np.testing.assert_allclose(state["algorithm.means"].numpy(), wanted, rtol=1e-5)
    np.savez("b.npz", features=features, labels=names)
    np.savez("b.npz", features=features, labels=names)
    with pytest.raises(UserError, match="FreeLunch looks at training classes, and there are none"):
        run(["test", "algo=freelunch", *words, "classes=all", "data.root=b.npz"])
