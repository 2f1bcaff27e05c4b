"""Functions of two variables and images to complete: points on what they are of, and the best linear estimator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fsl_cli.algorithms.base import PredictsDistribution
from fsl_cli.cli import run
from fsl_cli.data.sampler import Shape
from fsl_cli.data.sources.pixels import pixels
from fsl_cli.data.sources.quadratic2d import monomials, quadratic2d
from fsl_cli.data.sources.sinusoid import sinusoid
from fsl_cli.data.sources.sinusoid_coded import sinusoid_coded
from fsl_cli.data.tasks import Batch
from fsl_cli.episodes import Examples
from fsl_cli.errors import UserError
from fsl_cli.experiment.method import trained
from fsl_cli.runs.run import Run

CPU = torch.device("cpu")


def sequence(source: object, count: int, length: int) -> tuple[object, Examples]:
    tasks = source.tasks({"test": Shape(1, length - 1, 1)})  # type: ignore[attr-defined]
    [some] = tasks.gather(Batch("test", 0, [*range(count)]), CPU, torch.float64)
    return tasks, Examples(*(torch.cat(parts, 1) for parts in zip(some.support, some.query, strict=True)))


def errors(source: object, count: int, length: int) -> Tensor:
    tasks, examples = sequence(source, count, length)
    return (tasks.linear.sequence(examples) - examples.y).square().mean((0, 2))  # type: ignore[attr-defined]


def test_six_points_fix_a_quadratic_and_before_the_first_its_variance_is_left() -> None:
    found = errors(quadratic2d(), 3000, 9)
    expected = (1 / 5 + 1 / 5 + 1 / 9 + 1 / 3 + 1 / 3 + 1) / 3
    assert float(found[0]) == pytest.approx(expected, rel=0.06)
    assert bool((found[1:7] < found[:6]).all()) and float(found[6:].max()) < 1e-9


def test_two_points_fix_a_sinusoid_and_the_mean_of_all_is_known() -> None:
    source = sinusoid()
    found = errors(source, 3000, 5)
    tasks, examples = sequence(source, 20_000, 2)
    features = tasks.linear.features(examples.x)  # type: ignore[attr-defined]
    weights = torch.linalg.lstsq(features, examples.y).solution.squeeze(-1)
    assert tasks.linear.mean.tolist() == pytest.approx(weights.mean(0).tolist(), abs=0.05)  # type: ignore[attr-defined]
    assert torch.cov(weights.T).flatten().tolist() == pytest.approx(
        tasks.linear.covariance.flatten().tolist(),
        abs=0.12,  # type: ignore[attr-defined]
    )
    assert float(found[2:].max()) < 1e-6 < float(found[1]) < float(found[0])


def test_no_estimator_of_gaussian_weights_has_a_smaller_error() -> None:
    """By its definition: the mean of the weights given the points, from their joint normal distribution."""
    tasks, examples = sequence(quadratic2d(), 4, 4)
    features = monomials(examples.x[:, :3])
    gain = torch.linalg.solve(features @ features.mT / 3, features / 3).mT  # (T, 6, 3)
    weights = gain @ examples.y[:, :3]
    said = monomials(examples.x[:, 3:]) @ weights
    linear = tasks.linear  # type: ignore[attr-defined]
    torch.testing.assert_close(linear.estimate(Examples(examples.x[:, :3], examples.y[:, :3]), examples.x[:, 3:]), said)
    torch.testing.assert_close(linear.sequence(examples)[:, 3:], said)


def test_pixels_are_those_of_one_image_none_twice_and_of_its_split(tmp_path: Path) -> None:
    source = pixels(size=8, cache=str(tmp_path))
    tasks = source.tasks({part: Shape(1, [1, 20], 30) for part in ("train", "test")})
    groups = tasks.gather(Batch("test", 0, [*range(8)]), CPU, torch.float64)
    assert len(groups) > 1 and sum(len(group.index) for group in groups) == 8
    first = next(group for group in groups if 3 in group.index)
    place = first.index.tolist().index(3)
    x = torch.cat([first.support.x[place], first.query.x[place]])
    y = torch.cat([first.support.y[place], first.query.y[place]])
    assert len({tuple(each) for each in x.tolist()}) == len(x) and x.abs().max() <= 1
    torch.testing.assert_close(tasks.truth(Batch("test", 0, [3]), x)[0], y)
    store, split = source.data.store, source.data.splits["test"]
    whole = tasks.truth(Batch("test", 0, [3]), tasks.places.double())[0].view(8, 8)
    rows = store.images[store.starts[split.classes[0]] :, 0] / 255  # test classes come last
    assert any(torch.allclose(torch.from_numpy(row), whole, atol=1e-12) for row in rows)
    with pytest.raises(UserError, match="have 64 pixels"):
        source.tasks({"test": Shape(1, 60, 10)})
    with pytest.raises(UserError, match="drawn here, from no files"):
        pixels(root="x")


FEW = ["steps=4", "val_every=4", "val_episodes=2", "episodes=5", "meta_batch=2", "trainer=cpu", "algo.hidden=8"]


@pytest.mark.parametrize("data", ["quadratic2d", "pixels"])
def test_a_run_is_tested_beside_the_best_estimator_and_its_fits_are_drawn(data: str, tmp_path: Path) -> None:
    algo = "lstm" if data == "quadratic2d" else "cnp"
    small = ["data.size=8", "shot=[1,20]", "query=20"] if data == "pixels" else ["query=5"]
    run(["train", f"algo={algo}", f"data={data}", f"out={tmp_path}", *FEW, *small])
    [folder] = tmp_path.glob(f"{algo}-{data}-*/*")
    result = json.loads((folder / "result.json").read_text())
    assert result["image"]["items"] == "points" and result["image"]["channels"] == 2
    if data == "quadratic2d":
        assert result["best_mean"] < 1e-9 and len(result["best_by_instance"]) == 15
        assert len(result["by_instance"]["mean"]) == 15
    else:
        assert result["best_mean"] is None and result["split"] == "glyphs seeded"
        assert isinstance(trained(Run(folder)), PredictsDistribution)  # not the classifier of that name
    run(["show", "fit", f"run={folder}", "index=3", f"out={tmp_path / 'fit.png'}"])
    assert (tmp_path / "fit.png").stat().st_size > 5000 and (folder / "tasks.png").stat().st_size > 5000
    for words, said in {
        "show embedding": "no classes to tell apart. Type fsl show fit",
        "test data=sinusoid": "sinusoid has points of 1 number, and this run sees 2",
        "test data=glyphs": "glyphs has images, and this run sees points",
        "test way=2": "way=2: the tasks of .* have no classes. Type way=1",
    }.items():
        with pytest.raises(UserError, match=said):
            run([*words.split(), f"run={folder}"])


def test_classification_is_refused_a_fit_and_curves_a_classifier() -> None:
    with pytest.raises(UserError, match="ProtoNet tells classes apart, and the tasks of quadratic2d have none"):
        run(["check", "algo=protonet", "data=quadratic2d"])
    with pytest.raises(UserError, match="classes=all: the tasks of gp have no classes"):
        run(["check", "algo=cnp", "data=gp", "classes=all"])
    few = [f"data.{part}_classes=5" for part in ("train", "val", "test")]
    with pytest.raises(UserError, match="A neural process .* Type algo=cnp, or a regression: data=gp"):
        run(["check", "algo=anp", "data=glyphs", *few])


def test_codes_name_the_amplitude_in_training_and_nothing_in_a_test() -> None:
    tasks = sinusoid_coded(noise=1e-9).tasks({part: Shape(1, 4, 4) for part in ("train", "test")})
    found: dict[str, tuple[float, float]] = {}
    for part in ("train", "test"):
        [some] = tasks.gather(Batch(part, 0, [*range(400)]), torch.device("cpu"), torch.float64)
        code = some.query.x[:, :, 1:]
        assert torch.equal(code.sum(-1), torch.ones(400, 4)) and torch.equal(code[:, :1].expand(-1, 4, -1), code)
        amplitude = (some.query.y / some.query.x[..., :1].sin()).mean((1, 2))
        number = code[:, 0].argmax(-1)
        assert (number < 16).all() and len(set(number.tolist())) == 16
        named = 0.1 + 3.9 * number / 19
        linked = float(torch.corrcoef(torch.stack([named, amplitude]))[0, 1])
        found[part] = linked, float((named - amplitude).abs().max())
        truth = tasks.truth(Batch(part, 0, [7]), some.query.x[7])
        torch.testing.assert_close(truth[0], some.query.y[7], rtol=0, atol=1e-7)
    assert found["train"][1] < 1e-5 and abs(found["test"][0]) < 0.15
