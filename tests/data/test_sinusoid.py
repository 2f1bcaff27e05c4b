"""Regression: sinusoids are what they say, a run of them reports errors, and the picture shows the curves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import made_by, settings
from torch import nn

from fsl_cli.backbones.mlp import MLP
from fsl_cli.cli import run
from fsl_cli.data.sampler import Shape
from fsl_cli.data.sources.sinusoid import REACH, sinusoid
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import task_loss
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import POINT, assemble
from fsl_cli.experiment.method import learner
from fsl_cli.settings.registry import choices

CPU = torch.device("cpu")
RECIPES = [name.removesuffix("_sinusoid") for name in choices("recipe") if name.endswith("_sinusoid")]
WITH_LAYERS = [algo for algo in RECIPES if algo not in ("anp", "cnp", "lstm", "np")]  # whose layers are their own
REGRESS = [algo for algo in choices("algo") if made_by(algo).regresses]
REFUSED = [algo for algo in choices("algo") if algo not in REGRESS]


def test_points_lie_on_the_tasks_curve_and_curves_cover_their_ranges() -> None:
    tasks = sinusoid().tasks({"train": Shape(1, 7, 5)})
    batch = Batch("train", 0, list(range(2000)))
    [episodes] = tasks.gather(batch, CPU, torch.float64)
    assert episodes.support.x.shape == (2000, 7, 1)
    assert episodes.query.y.shape == (2000, 5, 1)
    x = torch.cat([episodes.support.x, episodes.query.x], 1)
    y = torch.cat([episodes.support.y, episodes.query.y], 1)
    for number in (0, 17):
        grid = tasks.truth(Batch("train", 0, [number]), x[number])
        torch.testing.assert_close(grid[0], y[number])
    assert x.abs().max() <= REACH and abs(float(x.mean())) < 0.1
    # amplitude A and phase p by least squares on sin x and cos x: A sin(x - p) = A cos p sin x - A sin p cos x
    a, b = torch.linalg.lstsq(torch.cat([x.sin(), x.cos()], -1), y).solution.squeeze(-1).T
    amplitude, phase = torch.hypot(a, b), torch.atan2(-b, a)
    assert 0.1 <= amplitude.min() < 0.15 and 4.95 < amplitude.max() <= 5.0 and abs(amplitude.mean() - 2.55) < 0.1
    assert -1e-9 <= phase.min() < 0.01 and math.pi - 0.01 < phase.max() <= math.pi + 1e-9


def test_an_episode_depends_on_its_index_alone_and_each_split_has_its_own() -> None:
    tasks = sinusoid().tasks({part: Shape(1, 3, 2) for part in ("train", "val")})
    together, alone = (tasks.gather(Batch("train", 0, index), CPU)[0] for index in ([4, 5], [5]))
    assert torch.equal(together.query.y[1], alone.query.y[0])
    other = tasks.gather(Batch("val", 0, [5]), CPU)[0]
    assert not torch.equal(other.query.y, alone.query.y)


def test_the_loss_of_targets_is_their_mean_squared_error() -> None:
    assert task_loss(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[[0.0], [1.0]]])) == 2.5
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]]])
    assert task_loss(logits, torch.tensor([[0, 0]])) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_a_run_reports_its_error_and_draws_adapted_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["steps=60", "val_every=30", "val_episodes=20", "episodes=40", "meta_batch=5", "trainer=cpu"]
    run(["train", "algo=maml", "data=sinusoid", f"out={tmp_path}", *words])
    (folder,) = tmp_path.glob("maml-sinusoid-*/*")
    result = json.loads((folder / "result.json").read_text())
    errors = [float(line.split(",")[1]) for line in (folder / "episodes.csv").read_text().splitlines()[1:]]
    assert result["metric"] == "mse" and result["mean"] == pytest.approx(sum(errors) / len(errors))
    assert (folder / "episodes.csv").read_text().startswith("index,mse,loss")
    header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    validation = [float(row[header.index("val_mse")]) for row in rows]
    training = json.loads((folder / "training.json").read_text())
    assert training["best_value"] == pytest.approx(min(validation))  # the least error is the best
    assert f"MSE {result['mean']:.3f}" in capsys.readouterr().out
    assert (folder / "curves.png").stat().st_size > 5000
    assert (folder / "tasks.png").stat().st_size > 20000


@pytest.mark.parametrize("algo", WITH_LAYERS)
def test_no_unit_of_the_first_layer_is_the_same_for_every_x(algo: str) -> None:
    config = settings([f"algo={algo}", "data=sinusoid"])
    x = torch.linspace(-REACH, REACH, 201).view(1, -1, 1)
    constant, units = 0, 0
    for seed in range(10):
        built = learner(config.having(seed=seed), POINT, metric="mse")
        (net,) = [module for module in built.modules() if isinstance(module, MLP)]
        with torch.no_grad():
            output = net.activation(net.layers[0](x))[0]  # (201, units)
        constant += int((output.std(0) == 0).sum())
        units += output.shape[1]
    start = config.backbone.get("start"), config.backbone.get("activation")
    # torch's own start leaves a unit of ReLU off where its bias is below -5 times its weight: one in twenty
    assert constant <= (0.08 * units if start == ("torch", "relu") else 0)


@pytest.mark.parametrize("algo", WITH_LAYERS)
def test_each_recipe_begins_where_its_own_authors_do(algo: str) -> None:
    config = settings([f"algo={algo}", "data=sinusoid"])
    built = learner(config, POINT, metric="mse")
    layers = [module for name, module in built.named_modules() if isinstance(module, nn.Linear) and "enter" not in name]
    assert len(layers) == 3  # two hidden, and the head
    for layer in layers:
        if algo in ("cavia", "reptile"):
            bound = 1 / math.sqrt(layer.in_features)
            assert 0.8 * bound < layer.weight.abs().max() <= bound and 0 < layer.bias.abs().max() <= bound
        else:
            assert not layer.bias.any() and 0.004 < layer.weight.std() < 0.013 and layer.weight.abs().max() <= 0.02


@pytest.mark.parametrize(
    "algo", [pytest.param(algo, marks=pytest.mark.slow if i % 8 else ()) for i, algo in enumerate(REFUSED)]
)
def test_an_algorithm_of_classes_is_refused_before_any_work(algo: str) -> None:
    with pytest.raises(UserError, match="tells classes apart"):
        assemble(settings([f"algo={algo}", "data=sinusoid", "trainer=cpu"]))


@pytest.mark.parametrize("algo", REGRESS)
def test_an_algorithm_regresses(algo: str) -> None:
    words = ["algo.head_init=learned"] if algo == "protomaml" else []
    made = settings([f"algo={algo}", "data=sinusoid", "trainer=cpu", *words])
    built = assemble(made).learner
    [some] = sinusoid().tasks({"val": Shape(1, 3, 3)}).gather(Batch("val", 0, [0]), CPU)
    assert built.algorithm.regresses
    assert built.eval().algorithm.adapt(some.support)(some.query.x).shape == some.query.y.shape
