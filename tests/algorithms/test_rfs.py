"""RFS: logistic regression on unit features, and distillation from another run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_data

from fsl_cli.algorithms.rfs import RFS
from fsl_cli.algorithms.solvers.logistic import logistic_regression
from fsl_cli.backbones.conv4 import Conv4
from fsl_cli.cli import run
from fsl_cli.data.sampler import Shape
from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.episodes import Episodes
from fsl_cli.errors import UserError


def episodes() -> Episodes:
    [some] = ImageTasks(tiny_data(), {"train": Shape(4, 2, 1)}, 1).gather(Batch("train", 0, [0]), torch.device("cpu"))
    return some


def rfs(seed: int, teacher: RFS | None = None, classes: int = 100) -> RFS:
    torch.manual_seed(seed)
    return RFS(Conv4(1, 16, "group", 8), classes, teacher).eval()


def test_logistic_regression_is_fitted_to_features_of_unit_length(float64: None) -> None:
    built, some = rfs(0), episodes()
    features, queries = (F.normalize(built.backbone(x), dim=-1) for x in (some.support.x, some.query.x))
    weight, bias = logistic_regression(features, some.support.y, 1.0)
    torch.testing.assert_close(built.adapt(some.support)(some.query.x), queries @ weight + bias)


def test_distillation_adds_the_distance_to_the_teacher(float64: None) -> None:
    some, teacher = episodes(), rfs(1)
    student, alone = rfs(0, teacher), rfs(0)
    x = torch.cat([some.support.x, some.query.x], 1)
    own, taught = (F.softmax(built.head(built.backbone(x)) / 4, -1) for built in (alone, teacher))
    distance = (taught * (taught.log() - own.log())).sum(-1).mean() * 16
    torch.testing.assert_close(student.loss(some), (alone.loss(some) + distance) / 2)
    student.loss(some).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(name.startswith("teacher") for name in student.state_dict())


def test_a_teacher_of_other_classes_is_refused() -> None:
    with pytest.raises(UserError, match="same 100 training classes"):
        rfs(0, rfs(1, classes=90))


SMALL = [
    "data.train_classes=40", "data.val_classes=16", "data.test_classes=16", "train_way=5", "query=3",
    "backbone.filters=8", "steps=3", "val_every=3", "val_episodes=4", "episodes=4", "trainer=cpu",
]  # fmt: skip


def test_a_run_learns_from_another_run(tmp_path: Path) -> None:
    run(["train", "algo=rfs", f"out={tmp_path / 'first'}", *SMALL])
    (first,) = (tmp_path / "first").glob("*/*/")
    run(["train", "algo=rfs", f"teacher={first}", f"out={tmp_path / 'second'}", "seed=1", *SMALL])
    run(["train", "algo=rfs", f"out={tmp_path / 'alone'}", "seed=1", *SMALL])
    (second,), (alone,) = ((tmp_path / name).glob("*/*/") for name in ("second", "alone"))
    weights = [
        torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"] for folder in (second, alone)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert not torch.equal(weights[0]["algorithm.head.weight"], weights[1]["algorithm.head.weight"])
    run(["test", f"run={second}", "shot=2"])
    with pytest.raises(UserError, match="no such folder"):
        run(["train", "algo=rfs", f"teacher={tmp_path / 'nowhere'}", *SMALL])
