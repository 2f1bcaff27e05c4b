"""Several data sets in one run: episodes of one each, in turns that depend on (seed, split, index) alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from fsl_cli.cli import run
from fsl_cli.data.several import SeveralTasks, several
from fsl_cli.data.store import DataSet, ImageStore
from fsl_cli.data.tasks import Batch
from fsl_cli.errors import UserError
from fsl_cli.experiment.assemble import assemble
from tests.conftest import settings, tiny_data, tiny_tasks

CPU = torch.device("cpu")


def other() -> DataSet:
    """Other classes than those of `tiny_data`, fewer, and turned."""
    data = tiny_data(40, turns=4)
    store = data.store._replace(images=255 - data.store.images, hash="other")
    return data._replace(name="other", store=store)


def both() -> SeveralTasks:
    return SeveralTasks({"tiny": tiny_tasks(), "other": tiny_tasks(other())})


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_episode_is_that_of_one_data_set_alone(part: str) -> None:
    tasks, index = both(), list(range(24))
    turns = [tasks.turn(3, part, each) for each in index]
    assert all({which for which, _ in turns[each : each + 2]} == {0, 1} for each in index[::2])
    assert len({which for which, _ in turns[::2]}) == 2  # not always the same one first
    assert Counter(which for which, _ in turns) == {0: 12, 1: 12}
    [group] = tasks.gather(Batch(part, 3, index), CPU)  # of one shape: side by side
    alone, first = [*tasks.each.values()], len(tiny_tasks().samplers[part].sizes)
    for place, number in enumerate(group.index.tolist()):
        which, own = turns[number]
        [same] = alone[which].gather(Batch(part, 3, [own]), CPU)
        assert torch.equal(group.query.x[place], same.query.x[0])
        assert group.classes[place].tolist() == [each + which * first for each in same.classes[0].tolist()]
    [here] = tasks.outside(Batch(part, 3, index[:1]), CPU)
    assert torch.equal(here, alone[turns[0][0]].outside(Batch(part, 3, [turns[0][1]]), CPU)[0])


def test_two_processes_see_what_one_sees() -> None:
    tasks = both()
    whole = {i: x for group in tasks.gather(Batch("train", 0, [8, 9, 10, 11]), CPU) for i, x in rows(group)}
    for share in ([8, 9], [10, 11]):
        found = {i: x for group in tasks.gather(Batch("train", 0, share), CPU) for i, x in rows(group)}
        assert found.keys() == set(share) and all(torch.equal(whole[i], x) for i, x in found.items())


def rows(group) -> list:
    return [*zip(group.index.tolist(), group.support.x, strict=True)]


def test_other_shapes_stay_apart() -> None:
    wide = tiny_tasks(other())
    wide.samplers = {part: own._replace(way=4) for part, own in wide.samplers.items()}
    groups = SeveralTasks({"tiny": tiny_tasks(), "wide": wide}).gather(Batch("val", 0, [0, 1]), CPU)
    assert sorted(group.classes.shape for group in groups) == [(1, 3), (1, 4)]


def test_what_stands_beside_a_number() -> None:
    data = several(tiny=tiny_data(), other=other())
    assert (data.name, data.hash) == ("tiny+other", "tiny+other")
    assert data.protocol["rotations"] == "none" and len(data.protocol["split_hash"]) == 10
    assert {name.partition(":")[0] for name in data.fingerprints("test")} == {"tiny", "other"}


def test_what_cannot_go_together_is_refused() -> None:
    small = tiny_data()
    halved = small._replace(store=ImageStore(small.store.images[..., ::2, ::2], *small.store[1:3], "halved"))
    for sets, said in (
        ({"a": small, "b": small}, "a and b have the same images"),
        ({"a": small, "b": halved}, "a 16 x 16, b 8 x 8. Type data.size=84"),
        ({"a": small, "b": object()}, "the tasks of b have no classes"),
    ):
        with pytest.raises(UserError, match=said):
            several(**sets)


GREY = ["data.glyphs.train_classes=6", "data.glyphs.val_classes=6", "data.glyphs.test_classes=6", "train_way=5"]


def photographs(root: Path, classes: int = 18) -> Path:
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(classes):
        (root / f"kind {number}").mkdir(parents=True)
        for picture in range(3):
            pixels = random.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"kind {number}" / f"{picture}.png")
    return root


def test_drawings_are_seen_as_photographs_beside_them_are(tmp_path: Path) -> None:
    root = photographs(tmp_path / "mine")
    words = ["data=[glyphs,folder]", *GREY, f"data.folder.root={root}", "data.size=20", "query=1", "train_query=1",
             "backbone.filters=4", "way=3", "train_way=3"]  # fmt: skip
    found = assemble(settings(words))
    assert (found.image.channels, found.image.size, found.image.mean, found.image.ink) == (3, 20, [0.5] * 3, False)
    assert found.data.name == "glyphs+mine"
    [episodes] = found.episodes.tasks.gather(Batch("val", 0, [0, 1]), CPU)
    assert episodes.support.x.shape == (2, 3, 3, 20, 20)
    paper = [x for x in episodes.support.x if torch.equal(x[:, 0], x[:, 1])]
    assert len(paper) == 1 and paper[0].mode() and float(paper[0].flatten().mode().values) == 1.0  # white, as on paper
    assert found.train_classes == 6 + 10


def features(path: Path, width: int) -> Path:
    labels = np.repeat([f"c{i}" for i in range(12)], 4)
    np.savez(path, features=np.random.default_rng(width).normal(size=(48, width)).astype(np.float32), labels=labels)
    return path


def test_items_of_two_kinds_and_of_two_widths_are_refused(tmp_path: Path) -> None:
    narrow, wide = features(tmp_path / "narrow.npz", 4), features(tmp_path / "wide.npz", 6)
    tail = ["way=2", "query=1", "train_way=2", "train_query=1", f"out={tmp_path}"]
    two = ["data=[embeddings,embeddings]", f"data.embeddings.root={narrow}", f"data.embeddings2.root={wide}"]
    for words, said in (
        (two, "embeddings of 4 numbers, another has 6|embeddings of 6 numbers, another has 4"),
        (["data=[glyphs,embeddings]", *GREY, f"data.embeddings.root={narrow}"], "data=embeddings has embeddings"),
        (["data=[glyphs,sinusoid]", *GREY], "the tasks of sinusoid have no classes"),
        (["data=[glyphs,folder]", *GREY, f"data.folder.root={photographs(tmp_path / 'p')}", "way=9"], "way=9 needs 9"),
        (["data=[glyphs,folder]", *GREY, f"data.folder.root={tmp_path / 'p'}", "classes=all"], "classes=all is one"),
        (["data=[glyphs,folder]", *GREY, f"data.folder.root={tmp_path / 'p'}", "labels=fixed"], "labels=fixed divides"),
        (["data=[glyphs,folder]", *GREY, f"data.folder.root={tmp_path / 'p'}", "backbone.finetune=5"], "test on each"),
    ):
        with pytest.raises(UserError, match=said):
            run(["check", *tail, *words])
