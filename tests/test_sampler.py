"""Episodes: what they hold, and that they depend on (seed, split, index) alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from conftest import tiny_data

from fsl_cli.data.datamodule import Batch, Episodic, Shape
from fsl_cli.data.sampler import Sampler
from fsl_cli.errors import UserError

SAMPLER = Sampler(np.array([20] * 30 + [9] * 10), way=5, shot=2, query=6)
PUBLISHED = {"classes": [11, 10, 15, 9, 20], "support": [[16, 19], [2, 15]], "query": [7, 13, 14, 6, 10, 3]}


def test_an_episode_has_exactly_its_classes_and_images() -> None:
    for index in range(200):
        classes, support, query = SAMPLER.episode(0, "train", index)
        assert len(set(classes.tolist())) == 5
        assert support.shape == (5, 2)
        assert query.shape == (5, 6)
        for number, first, second in zip(classes, support, query, strict=True):
            drawn = [*first, *second]
            assert len(set(drawn)) == 8  # support and query are disjoint
            assert max(drawn) < SAMPLER.sizes[number]


def test_an_episode_is_a_function_of_seed_split_and_index() -> None:
    drawn = [SAMPLER.episode(seed, split, i) for seed in (0, 1) for split in ("train", "val") for i in range(5)]
    again = [SAMPLER.episode(seed, split, i) for seed in (0, 1) for split in ("train", "val") for i in range(5)]
    assert all(np.array_equal(a.support, b.support) for a, b in zip(drawn, again, strict=True))
    assert len({tuple(episode.classes) for episode in drawn}) == len(drawn)


def test_episodes_are_the_same_in_every_version() -> None:
    """Published test episodes: if this fails, numbers of earlier versions cannot be compared in pairs any more."""
    classes, support, query = SAMPLER.episode(0, "test", 0)
    assert classes.tolist() == PUBLISHED["classes"]
    assert support[:2].tolist() == PUBLISHED["support"]
    assert query[0].tolist() == PUBLISHED["query"]


def test_labels_are_shuffled_and_draws_are_uniform() -> None:
    episodes = [SAMPLER.episode(0, "train", index) for index in range(4000)]
    ascending = np.mean([np.all(np.diff(e.classes) > 0) for e in episodes])
    assert ascending < 0.03  # 1 / 5! = 0.8% by chance
    counts = np.array(list(Counter(np.concatenate([e.classes for e in episodes]).tolist()).values()))
    assert len(counts) == 40
    assert abs(counts - 500).max() < 5 * np.sqrt(500)
    images = np.array(list(Counter(np.concatenate([e.query[e.classes >= 30].ravel() for e in episodes])).values()))
    assert len(images) == 9
    assert images.std() / images.mean() < 0.05


def module(turns: int = 1, **more: object) -> Episodic:
    shapes = dict.fromkeys(("train", "val", "test"), Shape(5, 1, 3))
    return Episodic(tiny_data(turns=turns), shapes, 1, episodes={"val": 1, "test": 1}, **more)  # type: ignore[arg-type]


def test_gathering_does_not_depend_on_the_meta_batch() -> None:
    together = module().gather(Batch("train", 0, [0, 1, 2]), torch.device("cpu"))
    alone = module().gather(Batch("train", 0, [2]), torch.device("cpu"))
    assert torch.equal(together.support.x[2], alone.support.x[0])
    assert torch.equal(together.query.x[2], alone.query.x[0])
    assert torch.equal(together.query.y[2], alone.query.y[0])


def test_images_belong_to_the_classes_behind_their_labels() -> None:
    data = tiny_data()
    got = module().gather(Batch("test", 0, [0]), torch.device("cpu"))
    for image, label in zip(got.query.x[0], got.query.y[0], strict=True):
        number = int(data.splits["test"].classes[got.classes[0, label]])
        own = data.store.images[data.store.starts[number] : data.store.starts[number + 1]]
        assert any(np.array_equal((image.numpy() * 255).round(), candidate) for candidate in own)


def test_turned_classes_have_their_own_angle_and_stay_in_their_parents_split() -> None:
    data = tiny_data(turns=4)
    got = module(turns=4).gather(Batch("train", 0, list(range(20))), torch.device("cpu"))
    angles = got.classes % 4
    assert len(set(angles[0].tolist()) | set(angles[1].tolist())) > 1  # not one angle for a whole task
    episode, label = next((e, c) for e in range(20) for c in range(5) if angles[e, c] == 1)
    number = int(data.splits["train"].classes[got.classes[episode, label] // 4])
    assert number < len(data.splits["train"].classes)
    turned = (got.support.x[episode, label].rot90(-1, (1, 2)).numpy() * 255).round()
    own = data.store.images[data.store.starts[number] : data.store.starts[number + 1]]
    assert any(np.array_equal(turned, candidate) for candidate in own)


def test_too_many_ways_and_images_are_refused() -> None:
    shapes = {"train": Shape(5, 1, 3), "val": Shape(51, 1, 3), "test": Shape(5, 4, 5)}
    with pytest.raises(UserError, match=r"way=51 needs 51 classes; the val split of tiny has 50\. Try way=50\."):
        Episodic(tiny_data(), shapes, 1, episodes={"val": 1, "test": 1})
    with pytest.raises(UserError, match=r"need 9 images of each class; class 150 in the test split of tiny has 8\."):
        Episodic(tiny_data(), {"test": shapes["test"]}, 1, episodes={"val": 1, "test": 1})
