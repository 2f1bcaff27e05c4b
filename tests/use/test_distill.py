"""Distilled data sets: the kernel against a wide network, the loss against finite differences, and the verb."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsl_cli.cli import run
from fsl_cli.data.sources.folder import folder
from fsl_cli.errors import UserError
from fsl_cli.use import inducing
from fsl_cli.use.inducing import Taught


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def taught(count: int, seed: int, classes: int = 3, d: int = 6) -> Taught:
    return Taught(randn(count, d, seed=seed), inducing.one_hot(torch.arange(count) % classes, classes))


@pytest.mark.parametrize("layers", [1, 2])
def test_the_kernel_is_that_of_a_wide_networks_gradients(layers: int) -> None:
    """In the tangent parametrisation: weights N(0, 1) times sqrt(2 / inputs), biases N(0, 1) times 0.1."""
    x, width = randn(4, 6), 4096 if layers == 1 else 1024
    widths = [6, *[width] * layers, 1]
    weights = [randn(out, into, seed=i).requires_grad_() for i, (into, out) in enumerate(pairwise(widths))]
    biases = [randn(len(each), seed=9 + i).requires_grad_() for i, each in enumerate(weights)]

    def network(one: torch.Tensor) -> torch.Tensor:
        for number, (w, b) in enumerate(zip(weights, biases, strict=True)):
            one = (inducing.WEIGHTS / w.shape[1]) ** 0.5 * w @ one + inducing.BIASES**0.5 * b
            one = one.relu() if number < layers else one
        return one.squeeze()

    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(network(one), weights + biases)]) for one in x]
    gradients = torch.stack(rows)
    found = inducing.kernel(x, x, layers)
    error = (gradients @ gradients.T - found).norm() / found.norm()
    assert error < (0.06 if layers == 1 else 0.1), error
    assert torch.linalg.eigvalsh(found).min() > 0


def test_without_hidden_layers_it_is_linear() -> None:
    x, z = randn(4, 6), randn(5, 6, seed=1)
    torch.testing.assert_close(inducing.kernel(x, z, 0), 2 / 6 * x @ z.T + 0.01)


def test_items_that_teach_themselves_leave_no_loss() -> None:
    own = taught(9, seed=2)
    assert inducing.loss(own, own).item() < 1e-8


def test_the_gradient_is_that_of_finite_differences() -> None:
    targets, labels = taught(8, seed=3), inducing.one_hot(torch.arange(3), 3)
    x = randn(3, 6, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: inducing.loss(Taught(x, labels), targets), x, eps=1e-6, atol=1e-6)


def test_solved_labels_are_those_of_the_least_loss() -> None:
    few, targets = taught(4, seed=5), taught(20, seed=6)
    solved = inducing.labels_solved(few, targets)
    least = inducing.loss(solved, targets)
    assert least < inducing.loss(few, targets)
    y = solved.y.clone().requires_grad_()
    (slope,) = torch.autograd.grad(inducing.loss(solved._replace(y=y), targets), y)
    assert slope.abs().max() < 1e-6


def test_distilling_lowers_the_loss_within_bounds_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    few, targets, bounds = taught(3, seed=7), taught(30, seed=8), (-1.0, 1.0)
    few.x.clamp_(*bounds)
    whole = inducing.distilled(few, targets, 40, 0.04, bounds, seed=0)
    monkeypatch.setattr(inducing, "TARGETS", 10)
    told: list[tuple[int, float]] = []
    parts = inducing.distilled(few, targets, 40, 0.04, bounds, seed=0, told=lambda *each: told.append(each))
    assert [step for step, _ in told] == list(range(1, 41)) and all(math.isfinite(value) for _, value in told)
    for found in (whole, parts):
        assert inducing.loss(found, targets) < inducing.loss(few, targets)
        assert found.x.abs().max() <= 1
        assert found.y is few.y


@pytest.fixture(scope="module")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 pictures, each a bar at another place under noise."""
    place, dice = tmp_path_factory.mktemp("patterns"), np.random.default_rng(0)
    for c in range(3):
        (place / f"bar {c}").mkdir()
        for i in range(20):
            pixels = dice.integers(0, 90, (8, 8))
            pixels[:, 3 * c] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"bar {c}" / f"{i}.png")
    return place


def test_what_is_written_is_a_data_set_with_the_same_classes(
    patterns: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data=folder", f"data.root={patterns}", "data.size=8", "data.channels=1", "steps=30", "--json"]
    run(["distill", *words, "images=7", f"out={tmp_path / 'few'}"])
    said = json.loads(capsys.readouterr().out)
    assert said["held_out"] == 21
    assert [each["of"] for each in said["reached"]] == [
        "7 as they are", "7 with solved labels", "7 distilled", "all 39"
    ]  # fmt: skip
    assert all(0 <= each["low"] <= each["accuracy"] <= each["high"] + 1e-9 <= 1 + 1e-8 for each in said["reached"])
    again = folder(str(tmp_path / "few"), size=8, channels=1)
    assert again.store.names == ["bar 0", "bar 1", "bar 2"]
    assert np.diff(again.store.starts).tolist() == [3, 2, 2]
    assert (tmp_path / "few.png").read_bytes().startswith(b"\x89PNG")


def test_embeddings_are_distilled_into_embeddings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.repeat(["a", "b", "c", "d", "e", "f"], 12)
    features = np.random.default_rng(0).normal(size=(72, 5)) + 3 * (labels[:, None] == np.array(list("abcde")))
    np.savez(tmp_path / "all.npz", features=features, labels=labels)
    run(["distill", "data=embeddings", f"data.root={tmp_path / 'all.npz'}", "images=12", "steps=20",
         f"out={tmp_path / 'few.npz'}"])  # fmt: skip
    assert "12 distilled" in capsys.readouterr().out
    written = np.load(tmp_path / "few.npz")
    assert written["features"].shape == (12, 5) and sorted(written["labels"]) == sorted([*"abcdef"] * 2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["images=2"], "there are 3 classes, and each needs one. Type images=3"),
        (["images=60"], "has 20 images, of which 7 are held out"),
        (["images=3", "classes=bar 0,bra 1"], "no class 'bra 1'.* Did you mean bar 1"),
        (["images=3", "classes=bar 0"], "two are needed"),
        (["images=3", "holdout=1"], "holdout=0.33"),
        (["images=3", "lr=nan"], "lr=nan"),
        (["images=many"], "images=many: type a whole number, such as images=10"),
        (["images=3", "layers=0"], "at least 1"),
        (["images=3", "split=tset"], "Did you mean test"),
        (["images=3", "out=few.npz"], "are a folder. Type out=few"),
        (["images=3", "out=full"], "there is something in this folder"),
        (["images=3", "steps=1e3"], "steps=1e3"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_distilled(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "1.txt").touch()
    with pytest.raises(UserError, match=says):
        run(["distill", "data=folder", f"data.root={patterns}", "data.size=8", "data.channels=1", "out=few", *words])
    assert not list(tmp_path.glob("few*"))


def test_texts_and_curves_are_refused(tmp_path: Path) -> None:
    for name in ("babble", "sinusoid"):
        with pytest.raises(UserError, match="choose one of images or embeddings"):
            run(["distill", f"data={name}", "images=3", f"out={tmp_path / 'few'}"])
