"""labels=fixed: each training class has one label, and the test says whether a run has learned these by heart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import settings
from torch import Tensor, nn

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.cli import run
from fsl_cli.data.sampler import Sampler, labelled
from fsl_cli.episodes import Classifier, Examples
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import assemble
from fsl_cli.experiment.memorisation import memorisation
from fsl_cli.experiment.trainer import one_process

DATA = ["data=glyphs", "data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "data.rotations=none"]
SMALL = [*DATA, "data.size=16", "backbone.filters=4", "trainer=cpu", "way=3", "train_query=2"]
TRAINED = "train_way=3"  # a recipe has its own
QUICK = ["steps=2", "val_every=2", "val_episodes=5", "episodes=5"]


def test_each_class_has_one_label_in_all_episodes_and_all_are_drawn() -> None:
    draws = Sampler(np.array([20] * 32), way=5, shot=1, query=2, labels="fixed")
    episodes = [draws.episode(0, "train", index) for index in range(400)]
    labels = {(number, label) for each in episodes for label, number in enumerate(each.classes)}
    assert len(labels) == len({number for number, _ in labels}) == 32
    assert sorted(map(len, labelled(0, "train", 32, 5))) == [6, 6, 6, 7, 7]
    assert labelled(1, "train", 32, 5) != labelled(0, "train", 32, 5)  # another run, other pools
    assert len({tuple(each.classes) for each in episodes}) > 380
    free = Sampler(draws.sizes, 5, 1, 2).episode(0, "train", 3)
    assert [len(own) for own in episodes[3].support] == [len(own) for own in free.support] == [1] * 5


def test_classes_of_a_group_come_together_in_one_order() -> None:
    draws = Sampler(np.array([20] * 32), way=5, shot=1, query=2, labels="groups")
    episodes = [draws.episode(0, "train", index) for index in range(200)]
    groups = {tuple(each.classes) for each in episodes}
    assert len(groups) == 6 and len({number for group in groups for number in group}) == 30  # two are left over
    assert len({tuple(each.support[0]) for each in episodes}) > 15  # of images as ever


class ByHeart(Algorithm):
    """Knows the label of each training image, and never looks at a support set."""

    def __init__(self, known: dict[bytes, int]) -> None:
        super().__init__()
        self.known, self.one = known, nn.Linear(1, 1)

    def adapt(self, support: Examples) -> Classifier:
        def classify(x: Tensor) -> Tensor:
            labels = [[self.known[image.numpy().tobytes()] for image in task] for task in x]
            return torch.nn.functional.one_hot(torch.tensor(labels), 3).to(x)

        return classify


class Reads(Algorithm):
    """Finds the nearest support image, by pixels."""

    def adapt(self, support: Examples) -> Classifier:
        def classify(x: Tensor) -> Tensor:
            nearest = torch.cdist(x.flatten(2), support.x.flatten(2)).argmin(-1)
            return torch.nn.functional.one_hot(support.y.gather(1, nearest), 3).to(x)

        return classify


def test_the_gap_is_zero_by_heart_and_all_of_it_for_a_reader() -> None:
    made = settings(["algo=protonet", *SMALL, TRAINED, "labels=fixed", "steps=1", "train_query=1"])
    experiment = assemble(made)
    tasks = experiment.episodes.tasks
    known = {}
    pools = labelled(made.seed, "train", 12, 3)
    for number, images in enumerate(tasks.images("train", torch.device("cpu"))):
        [label] = [label for label, own in enumerate(pools) if number in own]
        known |= {image.numpy().tobytes(): label for image in images}
    trainer = one_process(made.trainer)
    experiment.learner.algorithm = ByHeart(known)
    found = memorisation(experiment, trainer)
    assert found["accuracy"] == found["shuffled"] == 1.0 and found["gap"] == 0.0
    assert found["chance"] == pytest.approx(1 / 3)
    experiment.learner.algorithm = Reads()
    found = memorisation(experiment, trainer)
    assert found["shuffled"] == pytest.approx(found["chance"], abs=0.08)
    assert found["gap"] == pytest.approx(found["accuracy"] - found["shuffled"]) and found["gap"] > 0.2


def test_a_run_says_it_and_a_later_test_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["train", "algo=mrmaml", *SMALL, *QUICK, "labels=fixed", f"out={tmp_path}"])
    (folder,) = tmp_path.glob("*/*")
    first = json.loads((folder / "result.json").read_text())["memorisation"]
    assert first["episodes"] == 200 and 0 <= first["shuffled"] <= 1
    assert "with support labels shuffled" in capsys.readouterr().out
    run(["test", f"run={folder}", "episodes=6"])
    assert f"memorisation gap {first['gap']:.2%}" in capsys.readouterr().out
    run(["test", f"run={folder}", "data=glyphs", "episodes=6"])  # whose training classes have no labels there
    assert "memorisation" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algo=protonet", *SMALL, "train_way=[2,4]"], "labels=fixed: each class has one .* Type train_way=2"),
        (["algo=maml", "data=sinusoid"], "labels=fixed: the tasks of sinusoid have no labels. Type labels=drawn"),
    ],
)
def test_what_has_no_fixed_labels_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        assemble(settings([*words, "labels=fixed", "trainer=cpu"]))
