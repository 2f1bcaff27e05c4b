"""None of these: the scores, the threshold at a stated rate, the open test, and episodes that stay as they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import settings, tiny_tasks
from PIL import Image

from fsl_cli.cli import run
from fsl_cli.data.sampler import Sampler
from fsl_cli.data.tasks import Batch
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import assemble
from fsl_cli.experiment.judging import _judged
from fsl_cli.experiment.unknowns import SCORES, OpenLogits, auroc, fit_unknown, levels_of, score, threshold

SAMPLER = Sampler(np.array([20] * 12), way=5, shot=2, query=6)


def test_pictures_of_other_classes_are_as_many_and_no_episode_changes() -> None:
    for index in range(50):
        episode = SAMPLER.episode(0, "test", index)
        classes, images = SAMPLER.outside(0, "test", index)
        assert SAMPLER.episode(0, "test", index) == episode
        assert not set(classes) & set(episode.classes)
        assert len(set(zip(classes, images, strict=True))) == 30
        assert len(set(classes)) == 5
        assert SAMPLER.outside(0, "test", index) == (classes, images)
    assert SAMPLER.outside(0, "test", 0) != SAMPLER.outside(1, "test", 0) != SAMPLER.outside(1, "val", 0)


def test_few_other_classes_give_what_they_have_and_none_gives_nothing() -> None:
    assert len(SAMPLER._replace(way=11).outside(0, "test", 0)[0]) == 20  # one class of 20 images
    assert SAMPLER._replace(way=12).outside(0, "test", 0) == ([], [])


def test_pictures_outside_are_gathered_as_queries_are() -> None:
    tasks, batch = tiny_tasks(), Batch("test", 0, [3])
    [episode] = tasks.gather(batch, torch.device("cpu"))
    [x] = tasks.outside(batch, torch.device("cpu"))
    assert x.shape[1:] == episode.query.x.shape[2:]


@pytest.mark.parametrize("name", SCORES)
def test_a_higher_score_is_better_known(name: str) -> None:
    sure, unsure = torch.tensor([[0.0, -90, -90]]), torch.tensor([[-50.0, -51, -52]])
    assert score(name, sure, 5.0) > score(name, unsure, 5.0)


def test_the_area_under_the_curve_counts_pairs() -> None:
    assert auroc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.5])) == pytest.approx(0.75)
    assert auroc(torch.tensor([-1e9, 7.0]), torch.tensor([-1e9, -1e9])) == pytest.approx(0.75)


def test_the_threshold_has_its_rate_and_the_best_score_is_taken() -> None:
    """Known queries near a class, others far from all but as much nearer to one: the distance tells, not the ratio."""
    dice = torch.Generator().manual_seed(0)
    near = -torch.rand(4000, 1, generator=dice) * 10
    gaps = torch.rand(4000, 1, generator=dice) * 5
    inside = torch.cat([near, near - gaps], 1)
    outside = torch.cat([near - 8, near - 8 - gaps], 1)
    found = fit_unknown([OpenLogits(inside[:2000], outside[:2000]), OpenLogits(inside[2000:], outside[2000:])], 1.0)
    assert found is not None
    assert found.score in ("energy", "logit")
    assert found.auroc > 0.9
    alarms = (score(found.score, inside, 1.0) < threshold(found.levels, 0.05)).double().mean()
    assert float(alarms) == pytest.approx(0.05, abs=0.002)
    chance = (found.slope * score(found.score, torch.cat([inside, outside]), 1.0) + found.intercept).sigmoid()
    assert float(chance[:4000].mean()) < 0.25 < 0.75 < float(chance[4000:].mean())


def test_few_known_pictures_give_a_threshold_of_the_stated_rate_too() -> None:
    """Of ten scores the lowest is below another one in eleven times, and nothing rarer can be said."""
    dice = torch.Generator().manual_seed(0)
    drawn = [levels_of(torch.randn(10, generator=dice)) for _ in range(4000)]
    for rate, shown in ((0.3, 0.3), (1 / 11, 1 / 11), (0.01, 1 / 11)):
        limits = torch.tensor([threshold(levels, rate) for levels in drawn])
        below = torch.special.ndtr(limits.double()).mean()  # of another score of the same kind
        assert float(below) == pytest.approx(shown, abs=0.01)


def test_nothing_outside_is_no_score() -> None:
    assert fit_unknown([OpenLogits(torch.zeros(3, 2), torch.zeros(0, 2))], 1.0) is None


WORDS = [
    "data.train_classes=30", "data.val_classes=8", "data.test_classes=8", "data.size=16", "data.drawings=8",
    "way=3", "train_way=3", "train_query=2", "query=3", "steps=1", "val_every=1", "val_episodes=4", "episodes=4",
    "backbone.filters=4", "trainer=cpu", "logger=[]", "test=false",
]  # fmt: skip


def test_from_a_run_to_open_tests_and_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["train", *WORDS, f"out={tmp_path}"])
    [folder] = tmp_path.glob("protonet-glyphs-3w1s/*")
    assert json.loads((folder / "calibration.json").read_text())["score"] in SCORES

    run(["test", f"run={folder}"])
    run(["test", f"run={folder}", "open=true"])
    closed, opened = (
        json.loads((folder / "tests" / name / "result.json").read_text())
        for name in ("glyphs-3w1s", "glyphs-3w1s-open=true")
    )
    assert closed["open"] is None
    assert opened["mean"] == closed["mean"]  # the same episodes
    assert opened["open"].keys() >= {"auroc", "auroc_interval", "caught", "accuracy", "false_alarms"}
    assert 0 <= opened["open"]["auroc"] <= 1
    assert opened["open"]["accuracy"] <= opened["mean"]

    dice = np.random.default_rng(0)
    for name in ("known/a/1", "known/a/2", "known/b/1", "known/b/2", *(f"new/{i}" for i in range(20))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 255, (16, 16), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    words = ["predict", f"run={folder}", f"support={tmp_path / 'known'}", f"query={tmp_path / 'new'}", "--json"]
    for rate, most in (("0.999", 1.0), ("off", 0.0)):
        capsys.readouterr()
        run([*words, f"out={tmp_path / 'out'}", f"unknown={rate}"])
        found = json.loads(capsys.readouterr().out)
        assert found["calibration"] == "fitted on validation, 2w2s"  # for this support set, on the fly
        labels = [each["label"] for each in found["predictions"]]
        assert labels.count("unknown") > 10 if most else "unknown" not in labels
        assert ("unknown" in found["predictions"][0]) == bool(most)
    with pytest.raises(UserError, match="unknown=2: type the share"):
        run([*words, "unknown=2"])


@pytest.mark.parametrize("algo", ["maml", "protomaml", "matching", "relation", "r2d2", "rfs", "siamese", "metaoptnet"])
@pytest.mark.parametrize("classes", [8, 3])
def test_every_kind_of_method_is_judged_also_where_there_is_no_other_class(algo: str, classes: int) -> None:
    """Of three classes one is left out of the support set; a learned head has three outputs, and nothing is asked."""
    words = [f"algo={algo}", *WORDS[:5], f"data.val_classes={classes}", "way=3", "train_way=3", "query=3", "shot=1"]
    experiment = assemble(settings([*words, "train_shot=1", "train_query=2", "backbone=conv4", "backbone.filters=4"]))
    experiment.learner.eval()
    with torch.no_grad():
        found = _judged(experiment, "val", 0)
    assert found.known.logits.shape == (9, 3)
    wanted = [(9, 3), (9, 3)] if classes == 8 else [(0, 2), (0, 2)] if algo == "maml" else [(6, 2), (3, 2)]
    assert [tuple(side.shape) for side in found.sides] == wanted
