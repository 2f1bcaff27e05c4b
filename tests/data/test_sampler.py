"""Episodes: what they hold, and that they depend on (seed, split, index) alone."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import tiny_data

from fsl_cli.data.augment import Augment
from fsl_cli.data.feasible import shape_problems
from fsl_cli.data.sampler import Sampler, Shape, apportioned, by_metadataset
from fsl_cli.data.sources.glyphs import glyphs
from fsl_cli.data.tasks import Batch, ImageTasks
from fsl_cli.episodes import IGNORED, Episodes
from fsl_cli.errors import UserError

SAMPLER = Sampler(np.array([20] * 30 + [9] * 10), way=5, shot=2, query=6)
CPU = torch.device("cpu")
FIXED = Shape(5, 1, 3)
PUBLISHED = {"classes": [11, 10, 15, 9, 20], "support": [[16, 19], [2, 15]], "query": [7, 13, 14, 6, 10, 3]}


def test_an_episode_has_exactly_its_classes_and_images() -> None:
    for index in range(200):
        classes, support, query, *_ = SAMPLER.episode(0, "train", index)
        assert len(set(classes)) == 5
        assert [len(own) for own in support] == [2] * 5
        assert [len(own) for own in query] == [6] * 5
        for number, first, second in zip(classes, support, query, strict=True):
            drawn = [*first, *second]
            assert len(set(drawn)) == 8  # support and query are disjoint
            assert max(drawn) < SAMPLER.sizes[number]


def test_an_episode_is_a_function_of_seed_split_and_index() -> None:
    drawn = [SAMPLER.episode(seed, split, i) for seed in (0, 1) for split in ("train", "val") for i in range(5)]
    again = [SAMPLER.episode(seed, split, i) for seed in (0, 1) for split in ("train", "val") for i in range(5)]
    assert drawn == again
    assert len({tuple(episode.classes) for episode in drawn}) == len(drawn)


def test_episodes_are_the_same_in_every_version() -> None:
    """Published test episodes: if this fails, numbers of earlier versions cannot be compared in pairs any more."""
    classes, support, query, *_ = SAMPLER.episode(0, "test", 0)
    assert classes == PUBLISHED["classes"]
    assert support[:2] == PUBLISHED["support"]
    assert query[0] == PUBLISHED["query"]


def test_labels_are_shuffled_and_draws_are_uniform() -> None:
    episodes = [SAMPLER.episode(0, "train", index) for index in range(4000)]
    ascending = np.mean([np.all(np.diff(e.classes) > 0) for e in episodes])
    assert ascending < 0.03  # 1 / 5! = 0.8% by chance
    counts = np.array(list(Counter(number for e in episodes for number in e.classes).values()))
    assert len(counts) == 40
    assert abs(counts - 500).max() < 5 * np.sqrt(500)
    pairs = [pair for e in episodes for pair in zip(e.classes, e.query, strict=True)]
    images = np.array(list(Counter(image for number, query in pairs if number >= 30 for image in query).values()))
    assert len(images) == 9
    assert images.std() / images.mean() < 0.05


def gathered(part: str, index: list[int], turns: int = 1, shape: Shape = FIXED) -> list[Episodes]:
    tasks = ImageTasks(tiny_data(turns=turns), dict.fromkeys(("train", "val", "test"), shape), 1)
    return tasks.gather(Batch(part, 0, index), torch.device("cpu"))


def test_gathering_does_not_depend_on_the_meta_batch() -> None:
    together = gathered("train", [0, 1, 2])[0]
    alone = gathered("train", [2])[0]
    assert torch.equal(together.support.x[2], alone.support.x[0])
    assert torch.equal(together.query.x[2], alone.query.x[0])
    assert torch.equal(together.query.y[2], alone.query.y[0])


def test_images_belong_to_the_classes_behind_their_labels() -> None:
    data = tiny_data()
    got = gathered("test", [0])[0]
    for image, label in zip(got.query.x[0], got.query.y[0], strict=True):
        number = int(data.splits["test"].classes[got.classes[0, label]])
        own = data.store.images[data.store.starts[number] : data.store.starts[number + 1]]
        assert any(np.array_equal((image.numpy() * 255).round(), candidate) for candidate in own)


def test_turned_classes_have_their_own_angle_and_stay_in_their_parents_split() -> None:
    data = tiny_data(turns=4)
    got = gathered("train", list(range(20)), turns=4)[0]
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
        ImageTasks(tiny_data(), shapes, 1)
    with pytest.raises(UserError, match=r"need 9 images of each class; class 150 in the test split of tiny has 8\."):
        ImageTasks(tiny_data(), {"test": shapes["test"]}, 1)


def test_all_queries_are_the_images_that_are_left() -> None:
    for index in range(50):
        classes, support, query, *_ = Sampler(SAMPLER.sizes, 5, 2, "all").episode(0, "train", index)
        for number, first, second in zip(classes, support, query, strict=True):
            assert sorted([*first, *second]) == list(range(SAMPLER.sizes[number]))
            assert len(first) == 2


def test_ranges_of_way_and_shot_are_drawn_from_evenly() -> None:
    varied = Sampler(SAMPLER.sizes, [2, 6], [1, 4], 6)
    episodes = [varied.episode(0, "train", index) for index in range(3000)]
    ways = Counter(len(episode.classes) for episode in episodes)
    assert set(ways) == {2, 3, 4, 5, 6} and min(ways.values()) > 500
    sizes = [
        (varied.sizes[number], len(own)) for e in episodes for number, own in zip(e.classes, e.support, strict=True)
    ]
    large = Counter(shot for size, shot in sizes if size == 20)
    small = Counter(shot for size, shot in sizes if size == 9)
    assert set(large) == {1, 2, 3, 4} and min(large.values()) > 0.22 * sum(large.values())
    assert set(small) == {1, 2, 3}  # of 9 images, 6 are queries
    assert episodes[7] == varied.episode(0, "train", 7)


def test_what_does_not_vary_is_drawn_as_if_nothing_did() -> None:
    fixed, varied = SAMPLER.episode(0, "test", 3), Sampler(SAMPLER.sizes, 5, [1, 2], "all").episode(0, "test", 3)
    assert fixed.classes == varied.classes
    assert fixed.support[0][:1] == varied.support[0][:1]


def test_classes_of_one_group_only() -> None:
    groups = [np.arange(0, 10), np.arange(10, 13), np.arange(13, 40)]
    met = Counter()
    for index in range(400):
        episode = Sampler(SAMPLER.sizes, 5, 1, 1, groups).episode(0, "train", index)
        [group] = [i for i, group in enumerate(groups) if set(episode.classes) <= set(group.tolist())]
        met[group] += 1
    assert set(met) == {0, 2} and min(met.values()) > 150  # the group of three is too small


def test_episodes_of_one_shape_stand_side_by_side() -> None:
    shape = Shape([2, 3], [1, 2], 2)
    groups = gathered("train", list(range(12)), shape=shape)
    assert sorted(number for group in groups for number in group.index.tolist()) == list(range(12))
    assert len({(group.classes.shape[1], group.support.y.shape[1]) for group in groups}) == len(groups) > 2
    for group in groups:
        assert group.query.y.shape[1] == 2 * group.classes.shape[1]
        for episode, number in enumerate(group.index.tolist()):
            [alone] = gathered("train", [number], shape=shape)
            assert torch.equal(alone.support.x[0], group.support.x[episode])
            assert torch.equal(alone.support.y[0], group.support.y[episode])
            assert alone.support.y[0].unique().tolist() == list(range(group.classes.shape[1]))


def test_alphabets_are_turned_as_a_whole() -> None:
    data = tiny_data(turns=4)
    grouped = {part: split._replace(groups=split.classes // 10) for part, split in data.splits.items()}
    tasks = ImageTasks(data._replace(splits=grouped), {"train": FIXED}, 1)
    for [episode] in (tasks.gather(Batch("train", 0, [index]), torch.device("cpu")) for index in range(30)):
        assert len(set((episode.classes[0] % 4).tolist())) == 1
        assert len(set((episode.classes[0] // 4 // 10).tolist())) == 1
    with pytest.raises(UserError, match=r"train_way=11 needs 11 classes; no group of classes has more than 10"):
        ImageTasks(data._replace(splits=grouped), {"train": Shape(11, 1, 1)}, 1)


def test_only_training_images_are_augmented_and_by_their_index_alone() -> None:
    def images(part: str, index: list[int], augmentation: Augment | None) -> torch.Tensor:
        tasks = ImageTasks(tiny_data(), {part: FIXED}, 1, augmentation)
        return tasks.gather(Batch(part, 0, index), torch.device("cpu"))[0].support.x

    some = Augment(crop=0.3, flip=True, jitter=0.4)
    assert torch.equal(images("val", [0], some), images("val", [0], None))
    assert not torch.equal(images("train", [0], some), images("train", [0], None))
    assert torch.equal(images("train", [0, 1], some)[1], images("train", [1], some)[0])


def test_a_range_of_shots_that_no_class_reaches_is_refused() -> None:
    data = glyphs(train_classes=6, val_classes=6, test_classes=6, drawings=8, size=8)
    [line] = shape_problems(data, {"val": Shape(5, [1, 99], 2)})
    assert line.startswith("shot=[1, 99] and query=2 need up to 101 images of a class") and "Try shot=[1,6]." in line
    assert shape_problems(data, {"val": Shape(5, [1, 6], 2)}) == []


def test_dirichlet_changes_the_number_of_queries_of_each_class_and_nothing_else() -> None:
    """As many in all, the same classes and support sets; shares as Dirichlet(2), whose variance is known."""
    uneven, shares = SAMPLER._replace(query_balance="dirichlet"), []
    for index in range(300):
        even, found = SAMPLER.episode(0, "test", index), uneven.episode(0, "test", index)
        assert (found.classes, found.support) == (even.classes, even.support)
        counts = [len(own) for own in found.query]
        assert sum(counts) == 30 and found == uneven.episode(0, "test", index)
        for number, first, second in zip(found.classes, found.support, found.query, strict=True):
            assert len({*first, *second}) == len(first) + len(second)
            assert max([*first, *second]) < uneven.sizes[number]
        if min(uneven.sizes[found.classes]) == 20 and max(counts) < 18:
            shares.append(counts)
    large = Sampler(np.full(5, 1000), way=5, shot=1, query=100, query_balance="dirichlet")
    drawn = np.array([[len(own) for own in large.episode(0, "test", i).query] for i in range(1000)]) / 500
    assert drawn.mean(0) == pytest.approx(0.2, abs=0.015)
    assert drawn.var() == pytest.approx(0.2 * 0.8 / 11, rel=0.1)  # of a share: p (1 - p) / (sum of concentrations + 1)
    assert len({tuple(sorted(counts)) for counts in shares}) > 20


def test_what_a_class_cannot_give_goes_to_the_others() -> None:
    assert apportioned(10, [8, 1, 1], [20, 20, 20]) == [8, 1, 1]
    assert apportioned(10, [8, 1, 1], [4, 20, 20]) == [4, 3, 3]
    assert apportioned(10, [8, 1.5, 0.5], [4, 2, 4]) == [4, 2, 4]
    assert apportioned(3, [1, 1, 1e-9], [1, 1, 1]) == [1, 1, 1]


def test_dirichlet_needs_queries_to_choose_from() -> None:
    shape = Shape(5, 1, "all", "dirichlet")
    assert any("type query=15" in line for line in shape_problems(tiny_data(), {"test": shape}))


def test_images_without_labels_leave_the_rest_of_an_episode_as_it_is() -> None:
    more = SAMPLER._replace(unlabelled=1, distractors=3)
    for index in range(100):
        plain, found = SAMPLER.episode(0, "test", index), more.episode(0, "test", index)
        assert found[:3] == plain[:3] and found == more.episode(0, "test", index)
        assert len({*found.classes, *found.distractors}) == 8
        assert [len(own) for own in found.unlabelled] == [1] * 8
        for number, own, support, query in zip(
            found.classes, found.unlabelled, found.support, found.query, strict=False
        ):
            assert not {*own} & {*support, *query} and max(own) < more.sizes[number]
        assert not {*more.outside(0, "test", index)[0]} & {*found.classes, *found.distractors}
    assert len({tuple(more.episode(0, "test", index).distractors) for index in range(100)}) > 90


def test_a_share_of_each_class_has_labels_in_all_episodes() -> None:
    """Which images have labels depends on neither seed nor episode; the others are seen without labels alone."""
    few = SAMPLER._replace(query=2, unlabelled=3, distractors=2, labelled_share=0.4)
    with_labels: dict[int, set[int]] = {}
    without: dict[int, set[int]] = {}
    for seed in (0, 1):
        for index in range(300):
            found = few.episode(seed, "train", index)
            for number, support, query in zip(found.classes, found.support, found.query, strict=True):
                with_labels.setdefault(number, set()).update(support, query)
            for number, own in zip(found.classes + found.distractors, found.unlabelled, strict=True):
                without.setdefault(number, set()).update(own)
    for number, size in enumerate(few.sizes.tolist()):
        assert len(with_labels[number]) == round(0.4 * size) and len(without[number]) == size - round(0.4 * size)
        assert not with_labels[number] & without[number]
    everything = few._replace(query="all", unlabelled=0).episode(0, "train", 0)
    assert [len(a) + len(b) for a, b in zip(everything.support, everything.query, strict=True)] == [
        round(0.4 * few.sizes[number]) for number in everything.classes
    ]


def test_the_support_set_ends_with_images_without_labels() -> None:
    shape = Shape(3, 1, 2, unlabelled=2, distractors=1)
    data = tiny_data()
    (plain,) = ImageTasks(data, {"train": Shape(3, 1, 2)}, 1, Augment(padding=2)).gather(Batch("train", 0, [0, 1]), CPU)
    (found,) = ImageTasks(data, {"train": shape}, 1, Augment(padding=2)).gather(Batch("train", 0, [0, 1]), CPU)
    assert found.support.y.tolist() == [[0, 1, 2, *[IGNORED] * 8]] * 2
    assert torch.equal(found.support.labelled().x, plain.support.x) and torch.equal(found.query.x, plain.query.x)
    assert not torch.equal(found.support.x[:, 3:5], found.support.x[:, 5:7])


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (
            Shape(3, 1, 2, unlabelled=6),
            "has 2 beside those without labels (train_unlabelled=6). Try train_unlabelled=5;",
        ),
        (Shape(3, 1, 2, unlabelled=2, distractors=98), "Try distractors=97."),
        (Shape(3, 1, 2, distractors=2), "Type train_unlabelled=5, or distractors=0."),
        (Shape(3, 1, "all", unlabelled=2), "type train_query=15."),
        (
            Shape(3, 1, 3, labelled_share=0.4),
            "has 3 with labels (labelled_share=0.4). Try labelled_share=0.5; or",
        ),
        (Shape(3, 1, 2, unlabelled=6, labelled_share=0.4), "Try train_unlabelled=5."),
    ],
)
def test_what_a_split_cannot_give_without_labels_is_refused(shape: Shape, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        ImageTasks(tiny_data(), {"train": shape}, 1)


def test_the_law_of_meta_dataset() -> None:
    sizes = np.array([20, 600, 7, 90, 41, 33, 250, 1000] * 8)
    sampler = Sampler(sizes, (5, 50), "metadataset", 10)
    drawn = [sampler.episode(0, "test", index) for index in range(400)]
    assert {len(episode.classes) for episode in drawn} == set(range(5, 51))
    for episode in drawn:
        own = sizes[episode.classes]
        queries = min(10, min(own) // 2)
        assert {len(query) for query in episode.query} == {queries}
        shots = np.array([len(support) for support in episode.support])
        assert shots.min() >= 1 and shots.sum() <= 500 and (shots <= own - queries).all()
    totals = [sum(map(len, episode.support)) for episode in drawn if len(episode.classes) < 10]
    assert min(totals) < 100 < 300 < max(totals), "the size of the support set varies with its scale"
    few = Sampler(sizes[:8], (5, 50), "metadataset", 10)
    assert {len(few.episode(0, "test", index).classes) for index in range(50)} == {5, 6, 7, 8}


def test_the_law_of_meta_dataset_by_hand() -> None:
    # half of min(100, 20 - 10), min(100, 110 - 10): 5 + 50; shares 20 : 110 of 53 over one image each, none changed
    assert by_metadataset([20, 110], 10, [0.5, 0.5, 0.5]) == [1 + 53 * 20 // 130, 1 + 53 * 110 // 130]
    # the first class's share doubled, the other's halved: 40 : 55, and no more than there are
    assert by_metadataset([20, 110], 10, [0.5, 1.0, 0.0]) == [10, 1 + 53 * 55 // 95]
    assert sum(by_metadataset([1000] * 50, 10, [1.0] + [0.5] * 50)) == 500


def test_by_the_law_a_group_comes_first_and_ends_the_range_of_ways() -> None:
    groups = [np.arange(0, 6), np.arange(6, 20), np.arange(20, 23)]
    sampler = Sampler(np.full(23, 20), (5, 50), "metadataset", 10, groups)
    ways = [len(sampler.episode(0, "test", index).classes) for index in range(300)]
    assert set(ways) == set(range(5, 15)) and 0.4 < np.mean([way < 7 for way in ways]) < 0.75


def test_a_sequence_has_the_support_set_in_an_order_of_the_episodes_own() -> None:
    """The same images with the same labels, whichever episodes are beside it; and position does not tell the class."""

    def dealt(ordered: bool, index: list[int]) -> Episodes:
        tasks = ImageTasks(tiny_data(), {"test": Shape(3, 4, 2)}, 1)
        tasks.ordered = ordered
        [some] = tasks.gather(Batch("test", 0, index), CPU, torch.float64)
        return some

    plain, mixed, alone = dealt(False, [*range(40)]), dealt(True, [*range(40)]), dealt(True, [7])
    assert torch.equal(plain.query.x, mixed.query.x) and torch.equal(plain.query.y, mixed.query.y)
    assert torch.equal(mixed.support.x[7], alone.support.x[0]) and torch.equal(mixed.support.y[7], alone.support.y[0])

    def pairs(some: Episodes, task: int) -> list[list[float]]:
        x, y = some.support.x[task].flatten(1), some.support.y[task].unsqueeze(1)
        return sorted(torch.cat([y, x], 1).tolist())

    assert pairs(plain, 7) == pairs(mixed, 7)
    assert torch.equal(plain.support.y[0], torch.arange(3).repeat_interleave(4))
    share = torch.stack([mixed.support.y == label for label in range(3)]).double().mean(1)  # (3, places), about 1 / 3
    assert float((share - 1 / 3).abs().max()) < 0.3 and len({tuple(y.tolist()) for y in mixed.support.y}) == 40
