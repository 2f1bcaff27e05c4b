"""Settings for a folder of one's own: what the pictures are decides, what was typed stays, and `fsl show` says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsl_cli.cli import run
from fsl_cli.data.names import own_name
from fsl_cli.settings.binding import problems
from fsl_cli.settings.compose import chosen_part, compose
from fsl_cli.settings.own_pictures import fit_to_pictures, looked_at
from fsl_cli.settings.registry import choices


def photograph(dice: np.random.Generator, colours: int) -> Any:
    """Middle shades all over."""
    small = Image.fromarray(dice.integers(0, 255, (6, 6, colours), dtype=np.uint8).squeeze())
    return small.resize((120, 90), Image.Resampling.BICUBIC)


def drawing(dice: np.random.Generator) -> Any:
    """Ink on paper."""
    return Image.fromarray(np.where(dice.random((50, 50)) < 0.1, 0, 255).astype(np.uint8))


def folder(root: Path, kind: str, classes: int, each: int) -> Path:
    dice = np.random.default_rng(0)
    for c in range(classes):
        (root / f"c{c:02}").mkdir(parents=True)
        for i in range(each):
            picture = drawing(dice) if kind == "drawings" else photograph(dice, 3 if kind == "colour" else 1)
            picture.save(root / f"c{c:02}" / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("kind", "coloured", "photographs"), [("colour", True, True), ("grey", False, True), ("drawings", False, False)]
)
def test_a_look_tells_photographs_from_drawings(tmp_path: Path, kind: str, coloured: bool, photographs: bool) -> None:
    seen = looked_at(chosen_part("data", "folder").having(root=str(folder(tmp_path / "own", kind, 10, 3))))
    assert (seen.coloured, seen.photographs) == (coloured, photographs)
    assert seen.classes == {"train": 6, "val": 2, "test": 2}
    assert (seen.pictures, seen.side) == (18, 50 if kind == "drawings" else 90)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("own") / "flowers", "colour", 20, 12)


def test_photographs_get_what_they_need(flowers: Path) -> None:
    values = fit_to_pictures(compose(["algo=maml", "data=folder", f"data.root={flowers}"])).config.values
    assert values["algo"]["inner_lr"] == 0.01  # miniImageNet's; the 0.1 of small drawings starts far above chance
    assert values["norm"] == values["backbone"]["norm"] == "support"  # miniImageNet's recipe has transductive
    assert (values["way"], values["query"]) == (4, 1)
    assert values["augment"]["flip"]
    assert values["steps"] == 500


def test_a_network_that_comes_trained_keeps_what_it_sees(tmp_path: Path) -> None:
    words = ["data=folder", f"data.root={folder(tmp_path / 'own', 'drawings', 10, 3)}"]
    own, trained = (
        fit_to_pictures(compose([*words, *more])).config.values["data"] for more in ([], ["backbone=photos"])
    )
    assert (own["size"], own["channels"]) == (28, 1)
    assert (trained["size"], trained["channels"]) == (224, 3)  # which the network brings them to


def test_what_was_typed_stays(flowers: Path) -> None:
    words = ["data=folder", f"data.root={flowers}", "algo.temperature=3", "steps=7", "way=5", "augment.flip=false"]
    values = fit_to_pictures(compose(words)).config.values
    assert (values["algo"]["temperature"], values["steps"], values["way"]) == (3, 7, 5)
    assert values["augment"]["flip"] is False


def test_show_says_why(flowers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["show", "data=folder", f"data.root={flowers}"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "there are 12 classes to train on" in lines["train_way"]
    assert "as for miniimagenet: 20 classes of 12 coloured photographs or more, 90 pixels" in lines["temperature"]
    assert "conf/train.yaml" in lines["seed"]


@pytest.mark.slow
@pytest.mark.parametrize("algo", [name for name in choices("algo") if name != "joint"])
def test_every_algorithm_gets_settings_that_fit(flowers: Path, algo: str) -> None:
    values = fit_to_pictures(compose([f"algo={algo}", "data=folder", f"data.root={flowers}"])).config.values
    assert problems(values) == []
    train = [values[f"train_{key}"] for key in ("way", "shot", "query")]
    way, shot, query = (max(value) if isinstance(value, list) else value for value in train)
    assert way <= 12
    assert shot + query <= 12
    assert values["schedule"]["kind"] != "step" or values["schedule"]["every"] >= 500, "else the rate is gone at once"
    if values["schedule"]["kind"] == "table":
        assert max(values["schedule"]["table"]) < values["steps"]


def test_another_data_set_and_a_folder_that_cannot_be_read_are_left_alone(tmp_path: Path) -> None:
    for words in (["data=glyphs"], ["data=folder"], ["data=folder", f"data.root={tmp_path}"]):
        config = compose(words)
        assert fit_to_pictures(config) == (config, {})


def test_a_folder_has_a_name(tmp_path: Path) -> None:
    assert own_name("/photos/flowers") == own_name("/photos/flowers.zip") == own_name("/photos/flowers.tar.gz")
    assert own_name("/photos/flowers/labels.csv") == "flowers"
    assert own_name("/photos/flowers", "my own/ones") == "my_own_ones"
