"""Training without labels: they are hidden by construction, and queries are changed copies of one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fsl_cli.cli import run
from fsl_cli.data.pseudo import COUNT, Copies, hidden
from fsl_cli.data.sampler import Shape
from fsl_cli.data.store import DataSet
from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.episodes import Episodes
from fsl_cli.errors import UserError
from fsl_cli.runs.run import Run
from tests.conftest import tiny_data
from tests.data.test_folder import paint

CPU = torch.device("cpu")
SHAPES = {"train": Shape(5, 1, 3)}
UMTRA, PROTOTRANSFER = Copies(shift=0.214, dropout=0.5), Copies(turn=20, zoom=1.28, shear=10, shift=0.1)
QUICK = ["backbone.filters=4", "steps=4", "val_every=2", "val_episodes=4", "episodes=4", "trainer=cpu", "train_way=4"]
GLYPHS = ["data=glyphs", "data.train_classes=6", "data.val_classes=6", "data.test_classes=6", "data.size=16"]


def episodes(data: DataSet, copies: Copies, plain: bool = False) -> Episodes:
    tasks = ImageTasks(hidden(data, copies, SHAPES), SHAPES, 1, copies=copies)
    (found,) = tasks.gather(Batch("train", 0, [0, 1, 2], plain), CPU)
    return found


@pytest.mark.parametrize("copies", [UMTRA, PROTOTRANSFER])
def test_another_labelling_of_the_training_split_changes_no_episode(copies: Copies) -> None:
    data = tiny_data(30, turns=4)
    train = data.splits["train"].classes
    starts, images = data.store.starts, np.array(data.store.images)
    rows = np.concatenate([np.arange(starts[c], starts[c + 1]) for c in train])
    images[rows] = images[np.random.default_rng(0).permutation(rows)]
    other = data._replace(
        store=data.store._replace(images=images),
        splits={**data.splits, "train": data.splits["train"]._replace(classes=train[::-1].copy())},
    )
    one, two = episodes(data, copies), episodes(other, copies)
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
    more = hidden(data, UMTRA, shapes)
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
    assert "each picture is a class" in " ".join(capsys.readouterr().out.split())


def test_what_has_no_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="makes copies of images, and sinusoid has curves"):
        run(["train", "algo=maml", "data=sinusoid", "pseudo=umtra", f"out={tmp_path}"])
