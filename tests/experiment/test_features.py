"""Features in place of images: the same numbers, kept by all that they depend on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_data
from torch import Tensor

from fsl_cli.backbones.conv4 import Conv4
from fsl_cli.cli import run
from fsl_cli.data.sampler import Shape
from fsl_cli.data.tasks import Batch, ImageTasks

SMALL = [
    "data.train_classes=40", "data.val_classes=25", "data.test_classes=6", "data.drawings=10", "train_way=5",
    "query=3", "backbone.filters=8", "steps=4", "val_every=2", "val_episodes=6", "episodes=40", "trainer=cpu",
]  # fmt: skip
CPU = torch.device("cpu")


def scores(folder: Path) -> list[list[str]]:
    with open(folder / "episodes.csv") as file:
        return [[row["accuracy"], f"{float(row['loss']):.5f}"] for row in csv.DictReader(file)]


def test_the_images_of_a_split_come_in_the_order_in_which_episodes_find_their_features() -> None:
    tasks = ImageTasks(tiny_data(turns=4), dict.fromkeys(("train", "test"), Shape(3, [1, 4], "all")), 1)
    for part in ("train", "test"):
        [images] = tasks.gather(Batch(part, 0, [5]), CPU)
        tasks.features = {part: torch.cat(list(tasks.images(part, CPU))).flatten(1)}
        [features] = tasks.gather(Batch(part, 0, [5]), CPU)
        for of_images, of_features in zip(
            (images.support, images.query), (features.support, features.query), strict=True
        ):
            assert torch.equal(of_features.x, of_images.x.flatten(2))
            assert torch.equal(of_features.y, of_images.y)
        tasks.features = {}


@pytest.mark.parametrize(
    "words",
    [
        ["protonet"],
        pytest.param(["simpleshot"], marks=pytest.mark.slow),
        ["baseline", "algo.test_steps=5"],
        pytest.param(["baselinepp", "algo.test_steps=5"], marks=pytest.mark.slow),
    ],
    ids=lambda words: words[0],
)
def test_a_test_on_features_gives_what_a_test_on_images_gives(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 x 10 images, 40 episodes of 20: worth it; with 2 episodes it is not, and images are used."""
    algo, *more = words
    run(["train", f"algo={algo}", *more, f"out={tmp_path}", *SMALL, f"data.cache={tmp_path / 'cache'}"])
    (folder,) = tmp_path.glob(f"{algo}-*/*/")
    on_features = scores(folder)
    assert len(list((tmp_path / "cache" / "features").glob("glyphs-test-*.npy"))) == 1
    monkeypatch.setattr("fsl_cli.experiment.features.worth_it", lambda *_: False)
    run(["test", f"run={folder}", "episodes=39"])
    (again,) = (folder / "tests").glob("*/")
    assert scores(again) == on_features[:39]


def test_features_are_kept_for_their_weights_and_images(tmp_path: Path) -> None:
    words = ["train", f"out={tmp_path / 'out'}", *SMALL, f"data.cache={tmp_path / 'cache'}"]
    run(words)
    (folder,) = (tmp_path / "out").glob("*/*/")
    kept = tmp_path / "cache" / "features"
    (first,) = kept.glob("*.npy")
    written = first.stat().st_ino
    run(["test", f"run={folder}", "shot=2", "query=2"])
    assert [path.stat().st_ino for path in kept.glob("*.npy")] == [written]
    run([*words, "seed=1"])
    assert len(list(kept.glob("*.npy"))) == 2


def test_a_file_that_is_not_whole_is_made_again(tmp_path: Path) -> None:
    run(["train", f"out={tmp_path / 'out'}", *SMALL, f"data.cache={tmp_path / 'cache'}"])
    (folder,) = (tmp_path / "out").glob("*/*/")
    (kept,) = (tmp_path / "cache" / "features").glob("*.npy")
    before = kept.read_bytes()
    kept.write_bytes(before[:500])
    run(["test", f"run={folder}", "episodes=40"])
    assert kept.read_bytes() == before


def test_steps_0_tests_what_there_is(tmp_path: Path) -> None:
    """SimpleShot's centre is found all the same; fsl test without a run does this."""
    words = [word for word in SMALL if not word.startswith("steps")]
    run(["test", "algo=simpleshot", f"out={tmp_path}", *words])
    (folder,) = tmp_path.glob("*/*/")
    saved = json.loads((folder / "result.json").read_text())
    assert saved["step"] == 0
    weights = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert weights["algorithm.centre"].abs().sum() > 0


def test_few_images_pass_the_network_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, whole = [], Conv4.features

    def features(self: Conv4, x: Tensor, *more: Any) -> Tensor:
        seen.append(x.shape[1])
        return whole(self, x, *more)

    monkeypatch.setattr(Conv4, "features", features)
    monkeypatch.setattr("fsl_cli.experiment.features.AT_ONCE", 7)
    run(
        [
            "test",
            "algo=protonet",
            f"out={tmp_path / 'out'}",
            *SMALL[:4],
            *SMALL[5:7],
            *SMALL[9:],
            f"data.cache={tmp_path / 'cache'}",
        ]
    )
    assert seen[-12:] == [7, 3] * 6  # ten images of each of six classes, after an episode that was tried
