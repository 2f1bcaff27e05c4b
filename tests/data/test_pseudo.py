"""Training without labels: they are hidden by construction, and queries are changed copies of one image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from fsl_cli.cli import run
from fsl_cli.data.clusters import Clusters
from fsl_cli.data.pseudo import COUNT, Copies, hidden
from fsl_cli.data.sampler import Shape
from fsl_cli.data.store import DataSet, PseudoClasses
from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.episodes import Episodes
from fsl_cli.errors import UserError
from fsl_cli.experiment.autoencoder import CODE, AutoEncoder, autoencoder
from fsl_cli.experiment.clusters import clustered, in_order
from fsl_cli.experiment.features import _key
from fsl_cli.runs.run import Run
from tests.conftest import Pixels, tiny_data
from tests.data.test_folder import paint

CPU = torch.device("cpu")
SHAPES = {"train": Shape(5, 1, 3)}
CACTUS = Clusters(clusters=40, partitions=3)
UMTRA, PROTOTRANSFER = Copies(shift=0.214, dropout=0.5), Copies(turn=20, zoom=1.28, shear=10, shift=0.1)
QUICK = ["backbone.filters=4", "steps=4", "val_every=2", "val_episodes=4", "episodes=4", "trainer=cpu", "train_way=4"]
GLYPHS = ["data=glyphs", "data.train_classes=6", "data.val_classes=6", "data.test_classes=6", "data.size=16"]


def clusters(data: DataSet, part: str, shape: Shape, pseudo: Clusters = CACTUS) -> PseudoClasses:
    """Of pixels, not kept."""
    tasks = ImageTasks(in_order(data, part), {}, 1)
    return clustered(pseudo, tasks, part, shape, None, Path("/dev/null"))


def of_clusters(data: DataSet, pseudo: Clusters = CACTUS) -> Episodes:
    made = hidden(data, partial(clusters, pseudo=pseudo), SHAPES)
    (found,) = ImageTasks(made, SHAPES, 1).gather(Batch("train", 0, [0, 1, 2]), CPU)
    return found


def episodes(data: DataSet, copies: Copies, plain: bool = False) -> Episodes:
    tasks = ImageTasks(hidden(data, copies.classes, SHAPES), SHAPES, 1, copies=copies)
    (found,) = tasks.gather(Batch("train", 0, [0, 1, 2], plain), CPU)
    return found


@pytest.mark.parametrize(
    "made",
    [
        partial(episodes, copies=UMTRA),
        partial(episodes, copies=PROTOTRANSFER),
        of_clusters,
        partial(of_clusters, pseudo=Clusters(clusters=40, autoencoder=3)),
    ],
)
def test_another_labelling_of_the_training_split_changes_no_episode(made: Callable[[DataSet], Episodes]) -> None:
    data = tiny_data(30, turns=4)
    train = data.splits["train"].classes
    starts, images = data.store.starts, np.array(data.store.images)
    rows = np.concatenate([np.arange(starts[c], starts[c + 1]) for c in train])
    images[rows] = images[np.random.default_rng(0).permutation(rows)]
    other = data._replace(
        store=data.store._replace(images=images),
        splits={**data.splits, "train": data.splits["train"]._replace(classes=train[::-1].copy())},
    )
    one, two = made(data), made(other)
    for a, b in ((one.support.x, two.support.x), (one.query.x, two.query.x), (one.classes, two.classes)):
        assert torch.equal(a, b)


def test_queries_are_changed_copies_of_their_support_image_and_classes_are_distinct_images() -> None:
    data = tiny_data(30, turns=4)
    plain, changed = episodes(data, UMTRA, plain=True), episodes(data, UMTRA)
    assert torch.equal(plain.support.x, changed.support.x)
    assert torch.equal(plain.query.x, plain.support.x.repeat_interleave(3, 1))
    assert not torch.equal(changed.query.x, plain.query.x)
    assert (changed.query.y == torch.arange(5).repeat_interleave(3)).all()
    assert all(len(set(row)) == 5 for row in changed.classes.tolist())
    count = sum(int(np.diff(data.store.starts)[c]) for c in data.splits["train"].classes) * 4
    shapes = {"train": Shape(count + 1, 1, 1)}
    more = hidden(data, UMTRA.classes, shapes)
    with pytest.raises(UserError, match=f"Try train_way={count}"):
        ImageTasks(more, shapes, 1, copies=UMTRA)


def test_changes_are_what_they_say() -> None:
    pixels = torch.rand(6, 3, 10, 10)
    uniform = torch.from_numpy(Copies(dropout=0.5).numbers(0, "train", 0, 6, 100)).float()
    assert torch.equal(Copies().apply(pixels, uniform), pixels)
    kept = Copies(dropout=0.5).apply(pixels, uniform)
    assert ((kept == 0) | (kept == pixels)).all() and 0.3 < float((kept == 0).float().mean()) < 0.7
    middle = torch.full((6, COUNT), 0.5)  # nothing to either side
    torch.testing.assert_close(Copies(turn=20, zoom=2, shear=9, shift=0.5, jitter=1).apply(pixels, middle), pixels)
    right = middle.clone()
    right[:, 5] = 1  # 2 of 10 pixels
    torch.testing.assert_close(Copies(shift=0.2).apply(pixels, right)[..., :8], pixels[..., 2:])
    mirrored = middle.clone()
    mirrored[:, 7] = 0
    torch.testing.assert_close(Copies(flip=True).apply(pixels, mirrored), pixels.flip(3))
    assert torch.equal(Copies(flip=True, jitter=1).apply(pixels[:, :1], mirrored), pixels[:, :1])  # no colours
    quarter = middle.clone()
    quarter[:, 0] = 1
    torch.testing.assert_close(Copies(turn=89.99).apply(pixels, quarter), pixels.rot90(1, (2, 3)), atol=1e-2, rtol=0)


@pytest.mark.parametrize("words", [["pseudo=umtra", "algo=maml", "way=4"], ["pseudo=prototransfer", "train_query=1"]])
def test_a_run_says_which_labels_it_took(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["train", *GLYPHS, *words, *QUICK, f"out={tmp_path}"])
    said = " ".join(capsys.readouterr().out.split())
    assert "those of validation chose the checkpoint" in said
    assert Run(next(tmp_path.glob("*/*"))).result.hidden_labels == f"training ({words[0][7:]})"


def test_unsorted_pictures_are_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(40):
        paint(tmp_path / "photos" / f"{i}.png", np.random.default_rng(i).integers(0, 255, (16, 16), np.uint8))
    words = ["train", "data=folder", f"data.root={tmp_path / 'photos'}", *QUICK, "data.size=16", f"out={tmp_path}/o"]
    with pytest.raises(UserError, match="40 images but no class folders .*pseudo=prototransfer"):
        run(words)
    run([*words, "pseudo=prototransfer"])
    result = Run(next((tmp_path / "o").glob("*/*"))).result
    assert result.hidden_labels.startswith("training, validation and test") and result.split == "unsorted-0"
    assert "the classes told apart are those that it makes" in " ".join(capsys.readouterr().out.split())


def test_what_has_no_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="makes copies of images, and sinusoid has curves"):
        run(["train", "algo=maml", "data=sinusoid", "pseudo=umtra", f"out={tmp_path}"])


def test_the_classes_of_an_episode_are_clusters_of_one_division() -> None:
    """Images around four places: k-means finds these, and clusters too small for an episode are left out."""
    dice = np.random.default_rng(0)
    place = np.arange(80) % 4
    features = 10 * np.eye(4)[place] + 0.1 * dice.standard_normal((80, 4))
    four = Clusters(clusters=4, partitions=2)
    divisions = four.divisions(features, 6)
    found = four.classes(np.arange(80), divisions, 6)
    assert found.groups is not None and [len(group) for group in found.groups] == [4, 4]
    for start, stop in zip(found.starts, found.starts[1:], strict=False):
        assert len(set(place[found.items[start:stop]])) == 1 and stop - start == 20
    assert np.array_equal(divisions, four.divisions(features, 6))
    small = four.classes(np.arange(10, 15), np.array([[0, 1, 1, 2, 2]]), 2)
    assert small.groups is None and small.items.tolist() == [11, 12, 13, 14] and small.sizes.tolist() == [2, 2]
    few = Clusters(clusters=500)  # no more than can have 40 images each
    assert few.divisions(features, 40).max() == 1
    data = hidden(tiny_data(), clusters, SHAPES)
    tasks = ImageTasks(data, SHAPES, 1)
    made = data.splits["train"].pseudo
    assert made is not None and made.groups is not None and len(made.groups) == 3
    for index in range(50):
        drawn = tasks.samplers["train"].episode(0, "train", index)
        assert sum({*drawn.classes} <= set(group.tolist()) for group in made.groups) == 1


def test_clusters_of_a_runs_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", *GLYPHS, *QUICK, f"data.cache={tmp_path / 'cache'}"]
    run([*words, "pseudo=umtra", f"out={tmp_path / 'a'}"])
    (first,) = tmp_path.glob("a/*/*")
    second = [*words, "pseudo=cactus", f"pseudo.run={first}", "pseudo.clusters=12", "train_query=2"]
    for name in ("b", "c"):
        capsys.readouterr()
        run([*second, f"out={tmp_path / name}"])
        assert ("Dividing 120 images of train into clusters." in capsys.readouterr().out) == (name == "b")  # kept
    one, two = (Run(next(tmp_path.glob(f"{name}/*/*"))) for name in ("b", "c"))
    assert one.result.hidden_labels == "training (cactus)" and one.result.mean == two.result.mean
    run(["test", f"run={one}", "shot=2"])
    run([*words, f"out={tmp_path / 'd'}"])
    (labelled,) = tmp_path.glob("d/*/*")
    with pytest.raises(UserError, match="trained with the labels of 6 of these training classes"):
        run([*words, "pseudo=cactus", f"pseudo.run={labelled}", f"out={tmp_path / 'e'}"])
    run(
        [
            "test",
            "algo=protonet",
            "steps=0",
            "backbone.filters=4",
            *GLYPHS,
            "norm=support",
            "episodes=2",
            "query=2",
            f"out={tmp_path / 'f'}",
        ]
    )
    (of_support,) = tmp_path.glob("f/*/*")
    with pytest.raises(UserError, match="norm=running or norm=group or norm=none"):
        run([*words, "pseudo=cactus", f"pseudo.run={of_support}", f"out={tmp_path / 'e'}"])
    with pytest.raises(UserError, match="pseudo.run=.* has features of its own. Leave one of them out"):
        run([*second, "pseudo.autoencoder=5", f"out={tmp_path / 'e'}"])
    with pytest.raises(UserError, match="there is no such folder"):
        run([*words, "pseudo=cactus", f"pseudo.run={tmp_path / 'nowhere'}", f"out={tmp_path / 'e'}"])
    with pytest.raises(UserError, match="type less than train_query=60, or fewer"):
        run([*words, "pseudo=cactus", "train_query=60", "train_way=5", f"out={tmp_path / 'e'}"])
    with pytest.raises(UserError, match="makes clusters of images or embeddings, and sinusoid has curves"):
        run(["train", "algo=maml", "data=sinusoid", "pseudo=cactus", f"out={tmp_path / 'e'}"])


def test_an_auto_encoder_finds_what_pixels_hide(capsys: pytest.CaptureFixture[str]) -> None:
    """Two patterns at any of many places: its codes tell more of an image than the mean image; always the same ones."""
    dice = np.random.default_rng(0)
    places = dice.integers(0, 9, (300, 2))
    images = np.zeros((300, 1, 12, 12), dtype=np.float32)
    for image, (row, column) in zip(images, places, strict=True):
        image[0, row : row + 4, column : column + 4] = 1
    x, before = torch.from_numpy(images), torch.random.get_rng_state()
    one, two = (autoencoder(x, 60) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    told = [float(line.split("error ")[1].split("%")[0]) for line in capsys.readouterr().out.splitlines()[:10]]
    assert told[-1] < 70 < told[0], told
    assert one(x[:3]).shape == (3, CODE) and one.images(one(x[:3])).shape == x[:3].shape
    shapes = AutoEncoder(3, 84)  # sides that are halved to odd ones
    assert shapes.images(shapes(torch.zeros(2, 3, 84, 84))).shape == (2, 3, 84, 84)


def test_features_of_other_clusters_are_other_features() -> None:
    """What is kept of a split is named by its classes too, also where these are made."""
    data = tiny_data()
    backbone = Pixels(1, 16, 16)
    keys = []
    for count in (None, 20, 30):
        made = data if count is None else hidden(data, partial(clusters, pseudo=Clusters(clusters=count)), SHAPES)
        keys.append(_key(backbone, ImageTasks(made, SHAPES, 1), "train", "32"))
    assert len(set(keys)) == 3
