"""Fine-tuning at test: what it computes, that it leaves nothing behind, for which methods, what a result says of it."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSIFIERS, settings
from test_algorithms import ROWS, VARIANTS, algorithm, episodes

from fsl_cli import load_run
from fsl_cli.algorithms.finetuning import FineTuning, demand_fine_tuning, demand_gradient, usual_changes
from fsl_cli.cli import run
from fsl_cli.data.augment import Augment
from fsl_cli.data.tasks import ImageTasks
from fsl_cli.episodes import Episodes, task_loss
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import assemble

CHANGES = usual_changes(16)
ABLE = {
    "cnp", "feat", "gaussproto", "incontext", "matching", "metabaseline", "metaoptnet", "protonet", "r2d2", "relation",
    "rfs", "siamese", "simplecnaps", "simpleshot", "softkmeans", "tadam",
}  # fmt: skip


def only(some: Episodes, number: int) -> Episodes:
    parts = (each[number : number + 1] for each in (*some.support, *some.query, some.classes, some.index))
    x, y, queries, labels, classes, index = parts
    return Episodes(type(some.support)(x, y), type(some.query)(queries, labels), classes, index)


@pytest.mark.parametrize("norm", ROWS["protonet"].norms)
@torch.no_grad()
def test_it_takes_the_steps_of_torchs_adam_on_the_support_set(norm: str, float64: None) -> None:
    built, some = algorithm("protonet", norm).eval(), episodes(1, "test")
    said = FineTuning(3, 1e-2, Augment()).classifier(built, some)(some.query.x)
    other = deepcopy(built)
    adam = torch.optim.Adam(other.backbone.parameters(), lr=1e-2)  # type: ignore[union-attr, arg-type]
    for _ in range(3):
        adam.zero_grad()
        with torch.enable_grad():
            task_loss(other.adapt(some.support)(some.support.x), some.support.y).backward()
        adam.step()
    torch.testing.assert_close(said, other.adapt(some.support)(some.query.x))
    assert not torch.allclose(said, built.adapt(some.support)(some.query.x))


@torch.no_grad()
def test_an_episode_depends_on_no_other_and_the_weights_stay() -> None:
    built, some = algorithm("protonet", "running").eval(), episodes(3, "test")
    before, tuning = deepcopy(built.state_dict()), FineTuning(2, 1e-2, CHANGES)
    together = tuning.classifier(built, some)(some.query.x)
    for number in (2, 0):  # in another order, after others, and as another process would meet them
        alone = only(some, number)
        classify = tuning.classifier(built, alone)
        assert torch.equal(classify(alone.query.x), together[number : number + 1])
        torch.testing.assert_close(classify(alone.query.x[:, :1]), together[number : number + 1, :1])
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())
    plain = built.classifier(some)(some.query.x)
    assert torch.equal(tuning.at(0.0).classifier(built, some)(some.query.x), plain)
    assert not torch.equal(together, plain)


@torch.no_grad()
def test_pseudo_queries_are_the_support_images_changed_anew_in_each_step() -> None:
    built, some = algorithm("protonet", "running").eval(), episodes(1, "test")
    tuning = FineTuning(2, 1e-2, Augment(padding=2))
    first, second = tuning._changed(built, some.support.x, 0)
    assert not torch.equal(first, second) and first.shape == some.support.x.shape
    for changed in (first, second):  # shifted: what is inside of both stands there, black has come in elsewhere
        for before, after in zip(some.support.x[0], changed[0], strict=True):
            rolls = (before.roll((dy, dx), (1, 2)) for dy in range(-2, 3) for dx in range(-2, 3))
            assert any(torch.allclose(each[:, 2:-2, 2:-2], after[:, 2:-2, 2:-2], atol=1e-5) for each in rolls)
    assert torch.equal(tuning._changed(built, some.support.x, 0)[1], second)
    same = FineTuning(1, 1e-2, Augment())._changed(built, some.support.x, 0)[0]
    torch.testing.assert_close(same, some.support.x)


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name in ROWS and name not in VARIANTS])
@torch.no_grad()
def test_each_method_is_fine_tuned_or_refused_by_name(name: str) -> None:
    built, some = algorithm(name, ROWS[name].norms[0]).eval(), episodes(1, "test")
    if name not in ABLE:
        with pytest.raises(UserError, match=f"algo={name} .* Type backbone.finetune=0"):
            demand_fine_tuning(built, name)
        return
    demand_fine_tuning(built, name)
    demand_gradient(built, some, name)
    said = FineTuning(1, 1e-2, CHANGES).classifier(built, some)(some.query.x)
    assert said.isfinite().all() and not torch.allclose(said, built.classifier(some)(some.query.x))


SMALL = (
    "data=glyphs", "data.train_classes=12", "data.val_classes=8", "data.test_classes=8", "data.size=16", "steps=2",
    "episodes=3", "val_episodes=3", "val_every=2", "query=3", "backbone.filters=4", "trainer=cpu", "train_way=5",
)  # fmt: skip


def test_from_training_to_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[str] = []
    gather = ImageTasks.gather

    def watched(self: ImageTasks, batch: Any, *others: Any) -> list[Episodes]:
        met.append(batch.split)
        return gather(self, batch, *others)

    monkeypatch.setattr(ImageTasks, "gather", watched)
    run(["train", "algo=protonet", *SMALL, "backbone.finetune=2", f"out={tmp_path / 'o'}"])
    chosen = met.index("test")
    assert met[:chosen].count("val") >= 4 * 3 and "val" not in met[chosen:]  # four rates, before any test episode
    (path,) = tmp_path.glob("o/*/*/result.json")
    result = json.loads(path.read_text())
    found = result["finetuned"]
    assert (found["steps"], found["data"], found["episodes"], result["inference"]) == (2, "glyphs", 3, "inductive")
    assert list(found["accuracy"]) == ["0", "0.0001", "0.001", "0.01"]
    assert found["accuracy"][f"{found['rate']:g}"] == max(found["accuracy"].values())
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "fine-tuned on each support set: " in said and "3 validation episodes of glyphs" in said

    folder = path.parent
    run(["test", f"run={folder}"])
    assert (folder / "tests" / "glyphs-5w1s" / "episodes.csv").read_text() == (folder / "episodes.csv").read_text()
    run(["test", f"run={folder}", "backbone.finetune=0"])
    plain = json.loads(next((folder / "tests").glob("*finetune=0/result.json")).read_text())
    assert plain["finetuned"] is None

    path.write_text(json.dumps(result | {"finetuned": found | {"rate": 0.01}}))  # as it might have been chosen
    images, labels = list(np.random.default_rng(0).random((4, 16, 16))), ["a", "a", "b", "b"]
    kept = (folder / "classes.json").read_text()
    own = json.loads(kept)
    (folder / "classes.json").write_text(
        json.dumps(own | {"train": own["train"] | own["val"]})
    )  # as of train_on=trainval
    with pytest.raises(UserError, match="there are none that were not trained"):
        run(["test", f"run={folder}", "shot=2"])
    (folder / "classes.json").write_text(kept)
    tuned = load_run(folder).adapt(images, labels)(images)
    path.write_text(json.dumps(result | {"finetuned": found | {"rate": 0.0}}))
    assert not torch.allclose(tuned, load_run(folder).adapt(images, labels)(images))
    path.unlink()
    assert load_run(folder).finetuning  # by the test of before
    shutil.rmtree(folder / "tests")
    with pytest.raises(UserError, match="Type fsl test run="):
        load_run(folder)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["algo=maml"], "adapts to a support set by steps of its own"),
        (["algo=tpn"], "looks at all queries together"),
        (["algo=protonet", "attack=pgd"], "or attack=null"),
        (["algo=protonet", "train_on=trainval", "calibrate=false"], "there are none that were not trained"),
        (["algo=cnp", "data=sinusoid", "backbone=mlp"], "changes pixels, and sinusoid has points"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused_before_any_work(words: list[str], why: str) -> None:
    small = [] if "data=sinusoid" in words else [*SMALL]
    with pytest.raises(UserError, match=why):
        assemble(settings([*small, *words, "backbone.finetune=2"]))
