"""fsl show landscape: losses at weights that are put into an inner loop's place, for every method that has one."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from test_algorithms import ROWS, algorithm, episodes

from fsl_cli.algorithms import inner_loop
from fsl_cli.algorithms.base import TakesSteps
from fsl_cli.cli import run
from fsl_cli.episodes import task_loss
from fsl_cli.errors import UserError
from fsl_cli.use import landscape as subject
from fsl_cli.use.landscape import landscape, losses_at, walk


def has_inner_loop(name: str) -> bool:
    """Whether the file of an algorithm that takes steps uses inner_loop: others have loops of their own."""
    built = algorithm(name, ROWS[name].norms[0])
    used = vars(sys.modules[type(built).__module__]).values()
    return isinstance(built, TakesSteps) and any(each in (inner_loop.adapt, inner_loop.trajectory) for each in used)


WALKING = [name for name in ROWS if has_inner_loop(name)]


@pytest.mark.parametrize("name", WALKING)
def test_the_end_of_a_walk_has_the_loss_of_a_test(name: str, float64: None) -> None:
    built, some = algorithm(name, ROWS[name].norms[0]).eval(), episodes(1, "test")
    path = walk(built, some, name)
    assert len(path) == built.test_steps + 1  # type: ignore[operator]
    found = losses_at(built, some, path[-1]).query
    expected = float(task_loss(built.classifier(some)(some.query.x), some.query.y).detach())
    assert found == pytest.approx(expected, rel=1e-12)
    assert losses_at(built, some, path[0]).query != pytest.approx(expected, rel=1e-6)
    assert len(walk(built, some, name, times=2)) == 2 * len(path) - 1


@pytest.mark.parametrize("name", ["protonet", "tim", "l2l"])
def test_what_adapts_no_weights_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"algo={name} has no inner loop"):
        walk(algorithm(name, ROWS[name].norms[0]).eval(), episodes(1, "test"), name)


def test_the_plane_goes_through_the_start_and_both_ends(float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "GRID", 5)
    monkeypatch.setattr(subject, "MARGIN", 0.0)
    built, some = algorithm("anil", "support").eval(), episodes(1, "test")
    own, other = walk(built, some, "anil"), walk(built, some, "anil", times=3)
    found = landscape(built, some, own, other, ("own", "other"))
    flat = [torch.cat([value.flatten() for _, value in sorted(each.items())]) for each in (own[0], own[-1], other[-1])]
    places = [(0.0, 0.0), found.paths["own"][-1], found.paths["other"][-1]]
    assert found.paths["own"][0] == (0.0, 0.0) and places[1][1] == pytest.approx(0.0, abs=1e-9)
    for i, j in ((0, 1), (0, 2), (1, 2)):  # distances in the plane are those of the weights
        assert math.dist(places[i], places[j]) == pytest.approx(float((flat[i] - flat[j]).norm()))
    x, y = places[2]
    assert x == pytest.approx(max(found.along)) and y == pytest.approx(max(found.across))
    end = losses_at(built, some, other[-1])  # without a margin, the farthest point is a corner of the grid
    assert (found.support[-1][-1], found.query[-1][-1]) == pytest.approx(tuple(end), rel=1e-9)
    with pytest.raises(UserError, match="lie on a line"):
        landscape(built, some, own, own, ("own", "other"))


SMALL = [
    "data.train_classes=20", "data.val_classes=10", "data.test_classes=10", "data.size=16", "train_way=3", "way=3",
    "backbone.filters=4", "steps=0", "episodes=3", "query=3", "trainer=cpu", "norm=group",
]  # fmt: skip


def test_two_runs_in_one_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(subject, "GRID", 3)
    for number, words in enumerate((["algo=maml"], ["algo=fomaml", "seed=1"], ["algo=anil"], ["algo=protonet"])):
        run(["train", *words, *SMALL, f"out={tmp_path / str(number)}"])
    maml, other, anil, protonet = (next(tmp_path.glob(f"{number}/*/*")) for number in range(4))
    capsys.readouterr()
    run(["show", "landscape", f"run={maml}", f"other={other}", "index=1"])
    said = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in said[:3]] == ["start", "this run", "the other"]
    picture = maml / "shown" / "glyphs-3w1s" / "landscape-1.png"
    assert said[3:] == [str(picture), str(picture.with_suffix(".csv"))]
    assert picture.read_bytes().startswith(b"\x89PNG") and len(picture.with_suffix(".csv").read_text().split()) == 10
    run(["show", "landscape", f"run={maml}", "split=val"])
    assert "30 steps" in capsys.readouterr().out
    for words, message in (
        ([f"run={protonet}"], "algo=protonet has no inner loop"),
        ([f"run={maml}", f"other={anil}"], "it adapts .* numbers in 2 tensors, this run"),
        ([f"run={maml}", "index=3"], "test episodes are 0 to 2"),
    ):
        with pytest.raises(UserError, match=message):
            run(["show", "landscape", *words])
