"""fsl show episode, embedding and steps: pictures of what a run has learned, and of nothing else."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fsl_cli.cli import run
from fsl_cli.errors import UserError
from fsl_cli.pictures import embedding, marked_episode
from fsl_cli.use import show_episode
from fsl_cli.use.opened import open_run
from fsl_cli.use.steps import ladder

SMALL = [
    "data.train_classes=40", "data.val_classes=25", "data.test_classes=25", "train_way=5", "train_query=3", "query=4",
    "backbone.filters=8", "steps=4", "val_every=4", "val_episodes=3", "episodes=6", "trainer=cpu",
]  # fmt: skip


def trained(name: str, factory: pytest.TempPathFactory) -> Path:
    out = factory.mktemp(name)
    run(["train", f"algo={name}", f"out={out}", "norm=group", *SMALL])
    (folder,) = out.glob("*/*/")
    return folder


@pytest.fixture(scope="module")
def protonet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("protonet", tmp_path_factory)


@pytest.fixture(scope="module")
def maml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("maml", tmp_path_factory)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_an_episode_is_the_tests_own(name: str, request: pytest.FixtureRequest, capsys) -> None:
    folder = request.getfixturevalue(name)
    for index in (1, 4):
        run(["show", "episode", f"run={folder}", f"index={index}"])
        said = capsys.readouterr().out
        accuracy = float(rows(folder / "episodes.csv")[index]["accuracy"])
        assert f"{name} on glyphs, 5-way 1-shot, test episode {index}: {accuracy * 20:.0f} of 20 right" in said
        assert said.splitlines()[-1] == str(folder / "shown" / "glyphs-5w1s" / f"episode-{index}.png")
        assert Path(said.splitlines()[-1]).read_bytes().startswith(b"\x89PNG")


def test_its_picture_shows_the_images_that_the_network_saw(protonet: Path) -> None:
    opened = open_run({"run": str(protonet), "way": "3", "shot": "2"}, "x", None)
    figure, title = show_episode._predictions(opened, 2)
    [axis] = figure.axes
    data = opened.experiment.data
    drawn = opened.experiment.episodes.tasks.samplers["test"].episode(0, "test", 2)
    images = [image.get_array() for image in axis.images]
    wanted = [
        data.store.images[data.store.starts[data.splits["test"].classes[c]] + number, 0] / 255
        for part in (drawn.support, drawn.query)
        for c, own in zip(drawn.classes, part, strict=True)
        for number in own
    ]
    assert len(images) == len(wanted) == 3 * (2 + 4)
    for shown, own in zip(images, wanted, strict=True):
        assert abs(shown - own).max() < 1e-6
    right = int(re.search(r"(\d+) of 12 right", title)[1])
    assert sum(text.get_text().startswith("✓") for text in axis.texts) == right


def test_right_and_wrong_are_marked_with_what_was_predicted() -> None:
    image = torch.zeros(3, 4, 4)
    support, query = [(image, 0), (image, 1)], [(image, 0), (image, 0), (image, 1)]
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    [axis] = marked_episode.draw(support, query, probabilities, ["ash", "oak"], "").axes
    assert [text.get_text() for text in axis.texts] == ["✓  90%", "✗ 2  80%", "✓  60%"]
    assert [patch.get_linestyle() for patch in axis.patches] == ["-", "--", "-"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["1  ash", "2  oak"]
    assert [round(patch.get_x() - axis.patches[0].get_x()) for patch in axis.patches] == [0, 1, 0]


def test_steps_reach_what_a_test_with_so_many_reaches(maml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((maml / "result.json").read_text())
    run(["show", "steps", f"run={maml}", "upto=4"])
    assert "    3 steps   " in capsys.readouterr().out
    found = rows(maml / "shown" / "glyphs-5w1s" / "steps.csv")
    assert [row["steps"] for row in found] == ["0", "1", "2", "3", "4"]
    own = {key: float(value) for key, value in found[3].items()}  # algo.test_steps
    assert (own["accuracy"], own["accuracy_interval"], own["loss"]) == pytest.approx(
        (result["mean"], result["interval"], result["loss"]), rel=1e-6
    )
    assert len({row["loss"] for row in found}) == 5
    run(["show", "steps", f"run={maml}", "upto=1", "split=val"])
    validation = rows(maml / "shown" / "glyphs-5w1s-val" / "steps.csv")
    assert validation[1]["loss"] != found[1]["loss"]


def test_ladder_has_every_step_to_ten_and_ends_where_it_is_told() -> None:
    assert ladder(3) == [0, 1, 2, 3]
    assert ladder(20) == [*range(11), 12, 14, 16, 19, 20]
    assert ladder(200)[-1] == 200 and len(ladder(200)) < 30


def test_pca_finds_the_plane_that_points_lie_in() -> None:
    plane, _ = torch.linalg.qr(torch.randn(7, 2, generator=torch.Generator().manual_seed(0)))
    flat = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    points, about = embedding.pca(flat @ plane.T + 5)
    torch.testing.assert_close(points.abs().float(), flat.abs(), atol=1e-5, rtol=0)
    assert "100% of the variance" in about
    _, about = embedding.pca(torch.eye(4) - 0.5)  # three directions alike
    assert "67%" in about


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_an_embedding_shows_support_queries_and_mistakes(protonet: Path, method: str) -> None:
    def places(figure) -> list[int]:
        return [len(each.get_offsets()) for each in figure.axes[0].collections]

    points: Tensor = torch.arange(10.0).view(5, 2)
    figure = embedding.draw(points, [0, 1, 0, 1, 1], [True, False, True], ["ash", "oak"], "")
    assert places(figure) == [1, 0, 1, 1, 1, 1]  # of each class: dots, crosses, stars
    assert figure.axes[0].collections[4].get_offsets().tolist() == [[6.0, 7.0]]
    run(["show", "embedding", f"run={protonet}", f"method={method}", "way=3", "shot=2", "index=5"])
    assert (protonet / "shown" / "glyphs-3w2s" / f"embedding-{method}-5.png").stat().st_size > 5000


def test_a_regressions_episode_is_a_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["steps=2", "val_every=2", "val_episodes=2", "episodes=4", "test=false", "trainer=cpu"]
    run(["train", "algo=maml", "data=sinusoid", f"out={tmp_path}", *small])
    (folder,) = tmp_path.glob("*/*/")
    run(["show", "episode", f"run={folder}", "index=3"])
    assert Path(capsys.readouterr().out.splitlines()[-1]).stat().st_size > 10000
    run(["show", "steps", f"run={folder}", "upto=2"])
    assert list(rows(next(folder.glob("shown/*/steps.csv")))[0])[:3] == ["steps", "mse", "mse_interval"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["episod", "run=x"], "no picture 'episod'. Did you mean episode?"),
        (["episode", "index=3"], "Which run? Type fsl show episode run=FOLDER"),
        (["episode", "RUN", "index=6"], "test episodes are 0 to 5. Type one of these, or episodes=7"),
        (["episode", "RUN", "index=-1"], "index=-1: must be a whole number"),
        (["episode", "RUN", "split=train"], "split=train: type split=test or split=val"),
        (["episode", "RUN", "out=x.pdf"], "Type out=x.png"),
        (["embedding", "RUN", "method=umap"], "type method=pca or method=tsne"),
        (["embedding", "RUN", "way=30"], "way=30 needs 30 classes"),
        (["steps", "RUN"], "algo=protonet takes no gradient steps"),
        (["episode", "run=nowhere"], "nowhere: there is no such folder"),
    ],
)
def test_bad_words_are_refused_and_write_nothing(protonet: Path, words: list[str], said: str) -> None:
    before = sorted(protonet.rglob("*"))
    with pytest.raises(UserError) as error:
        run(["show", *(f"run={protonet}" if word == "RUN" else word for word in words)])
    assert said in str(error.value)
    assert sorted(protonet.rglob("*")) == before


def test_gradient_methods_have_no_embedding_of_their_own(maml: Path) -> None:
    with pytest.raises(UserError, match="algo=maml has no embedding that all tasks share.*fsl show steps"):
        run(["show", "embedding", f"run={maml}"])
