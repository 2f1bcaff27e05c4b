"""An episode is a function of (seed, split, index), and of nothing else.

Not of workers, ranks, the meta-batch, restarts or the algorithm: this is why several processes equal one,
why a resumed run equals an uninterrupted one, and why two runs can be compared episode by episode.
The random numbers are the bytes of SHAKE-128 over those three, so no library's generator can change them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import shake_128
from math import ceil, floor, log
from typing import Any, Literal, NamedTuple

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Count = int | Sequence[int]  # a number, or the least and the most of a range to draw from
Shots = Count | Literal["metadataset"]  # of each class; or by the law of Meta-Dataset
Queries = int | Literal["all"]  # images of each class, or all that are left of it
MOST_OF_A_CLASS, MOST_OF_A_SUPPORT_SET = 100, 500  # images, by the law of Meta-Dataset
Balance = Literal["even", "dirichlet"]  # as many queries of each class, or shares by Dirichlet(2)
# drawn for each episode; one of each class for good; and only with the same other classes
Labels = Literal["drawn", "fixed", "groups"]


class Shape(NamedTuple):
    """N-way k-shot episodes: a range of ways is drawn from for each episode, one of shots for each class.

    By the law of Meta-Dataset a range of ways ends where the split does, and `query` is the most.
    """

    way: Count
    shot: Shots
    query: Queries
    query_balance: Balance = "even"
    unlabelled: int = 0  # further images of each class, without labels
    distractors: int = 0  # other classes that have as many
    labelled_share: float = 1.0  # of a class's images have labels, always the same; the others are for `unlabelled`


class Episode(NamedTuple):
    """One task, as numbers. The order of `classes` is the order of the labels."""

    classes: list[int]  # drawn without replacement, in random order: labels carry no meaning, unless they are fixed
    support: list[list[int]]  # for each class, which of its images
    query: list[list[int]]  # likewise, disjoint from support
    distractors: list[int] = []  # classes whose images are among those without labels, and no others of theirs
    unlabelled: list[list[int]] = []  # for each class and then each distractor, further images


class Sampler(NamedTuple):
    """Draws episodes from classes with `sizes[c]` images each."""

    sizes: Numbers  # (classes,) images of each class
    way: Count
    shot: Shots
    query: Queries
    groups: list[Numbers] | None = None  # the classes of an episode come from one of these, if given
    query_balance: Balance = "even"
    labels: Labels = "drawn"  # or each class has one in all episodes: see `labelled`; then there are no `groups`
    unlabelled: int = 0
    distractors: int = 0
    labelled_share: float = 1.0

    def episode(self, seed: int, split: str, index: int) -> Episode:
        """Episode number `index` of the stream that (seed, split) names; its cost grows with its images only."""
        stream = f"{seed}/{split}/{index}"
        # apart from the rest, which fixed shapes share
        dice = iter(raw_numbers(f"{stream}/shape", 3 + largest(self.way)))
        way, pool = self._way_and_pool(dice)
        if self.labels != "drawn":
            of_labels, picks = labelled(seed, split, len(self.sizes), way), raw_numbers(stream, way)
            if self.labels == "groups":  # the same place in each; classes that are left over are never drawn
                picks = [picks[0] % (len(self.sizes) // way)] * way
            classes = [own[n % len(own)] for own, n in zip(of_labels, picks, strict=True)]
        else:
            drawn = distinct(raw_numbers(stream, way), len(self.sizes) if pool is None else len(pool))
            classes = drawn if pool is None else pool[drawn].tolist()
        sizes = self.sizes[classes].tolist()
        room = [room_of(size, self.unlabelled, self.labelled_share) for size in sizes]
        shots, queries = self._shots_and_queries(room, dice)
        each = [shot + queries for shot in shots]
        raw = iter(raw_numbers(stream, way + sum(each))[way:])
        numbers = [[next(raw) for _ in range(n)] for n in each]
        if self.query_balance == "dirichlet":
            numbers = _other_queries(numbers, shots, room, f"{stream}/balance")
        known = [self._divided(split, number)[0] for number in classes]
        images = [[own[i] for i in distinct(raw, len(own))] for raw, own in zip(numbers, known, strict=True)]
        support = [drawn[:shot] for drawn, shot in zip(images, shots, strict=True)]
        if self.query == "all":
            return Episode(classes, support, [_without(own, used) for own, used in zip(known, support, strict=True)])
        episode = Episode(classes, support, [drawn[shot:] for drawn, shot in zip(images, shots, strict=True)])
        return self._with_unlabelled(episode, split, stream) if self.unlabelled else episode

    def _shots_and_queries(self, room: list[int], dice: Iterator[int]) -> tuple[list[int], int]:
        """Support images of each class that has `room` images, and how many queries are drawn of each; all: none is."""
        asked = 0 if self.query == "all" else self.query
        if self.shot == "metadataset":
            queries = min(asked, min(room) // 2)
            return by_metadataset(room, queries, [(next(dice) + 0.5) / 2**64 for _ in range(1 + len(room))]), queries
        return [_between(self.shot, dice, most - max(asked, 1)) for most in room], asked

    def _with_unlabelled(self, episode: Episode, split: str, stream: str) -> Episode:
        """The episode with images without labels: from a stream of its own, so that the rest stays as it is."""
        others = np.setdiff1d(np.arange(len(self.sizes)), episode.classes)
        count = len(episode.classes) + self.distractors
        raw = iter(raw_numbers(f"{stream}/unlabelled", self.distractors + self.unlabelled * count))
        distractors = others[distinct([next(raw) for _ in range(self.distractors)], len(others))].tolist()
        used = [a + b for a, b in zip(episode.support, episode.query, strict=True)] + [[]] * self.distractors
        found = []
        for number, taken in zip(episode.classes + distractors, used, strict=True):
            labelled, rest = self._divided(split, number)
            pool = rest or _without(labelled, taken)
            found.append([pool[i] for i in distinct([next(raw) for _ in range(self.unlabelled)], len(pool))])
        return episode._replace(distractors=distractors, unlabelled=found)

    def _divided(self, split: str, number: int) -> tuple[Sequence[int], Sequence[int]]:
        """The images of a class that have labels, and those that have none: in all runs the same."""
        size = int(self.sizes[number])
        return (range(size), ()) if self.labelled_share == 1 else divided(split, number, size, self.labelled_share)

    def outside(self, seed: int, split: str, index: int) -> tuple[list[int], list[int]]:
        """Classes and image numbers of images whose classes the episode does not have, one for each of its queries.

        From a stream of its own, so the episode stays as it is. There are fewer where such classes lack images, and
        none where there is no such class.
        """
        episode = self.episode(seed, split, index)
        count = sum(map(len, episode.query))
        others = np.setdiff1d(np.arange(len(self.sizes)), episode.classes + episode.distractors)
        stream = f"{seed}/{split}/{index}/outside"
        drawn = others[distinct(raw_numbers(stream, min(len(others), len(episode.classes))), len(others))].tolist()
        raw = iter(raw_numbers(stream, len(drawn) + count)[len(drawn) :])
        found: list[tuple[int, int]] = []
        for i, number in enumerate(drawn):
            size = int(self.sizes[number])
            each = min(count // len(drawn) + (i < count % len(drawn)), size)
            found += [(number, image) for image in distinct([next(raw) for _ in range(each)], size)]
        return [number for number, _ in found], [image for _, image in found]

    @staticmethod
    def support_order(seed: int, split: str, index: int, count: int) -> list[int]:
        """The order of the episode's `count` support images for methods that read them one after the other.

        From a stream of its own, so the episode stays as it is.
        """
        return distinct(raw_numbers(f"{seed}/{split}/{index}/order", count), count)

    @staticmethod
    def label_order(seed: int, split: str, index: int, count: int) -> list[int]:
        """An order for the labels of the episode's `count` support images that has nothing to do with the images.

        From a stream of its own, so the episode stays as it is.
        """
        return distinct(raw_numbers(f"{seed}/{split}/{index}/shuffled", count), count)

    def _way_and_pool(self, dice: Iterator[int]) -> tuple[int, Numbers | None]:
        """The number of classes, and the classes of one group that has enough of them; None: all classes."""
        law = self.shot == "metadataset"
        if self.groups is None:
            return _between(self.way, dice, len(self.sizes) if law else None), None
        if law:  # a group first, and no more classes than it has
            pool = _one_of(self.groups, smallest(self.way), dice)
            return _between(self.way, dice, len(pool)), pool
        way = _between(self.way, dice)
        return way, _one_of(self.groups, way, dice)


def smallest(count: Shots) -> int:
    """The number, or the least of the range."""
    if isinstance(count, str):
        return 1
    return count if isinstance(count, int) else count[0]


def largest(count: Shots) -> int:
    """The number, or the most of the range."""
    if isinstance(count, str):
        return MOST_OF_A_CLASS
    return count if isinstance(count, int) else count[1]


def by_metadataset(sizes: Sequence[int], queries: int, dice: Sequence[float]) -> list[int]:
    """Support images of each class by the law of Meta-Dataset (Triantafillou et al., ICLR 2020, section 3.2.1).

    https://arxiv.org/abs/1903.03096
    The first of `dice`, numbers of 0..1, scales the whole support set, 500 images at most; the others change
    each class's share, which else is that of its `sizes`, by a factor from a half to two.
    """
    left = [size - queries for size in sizes]
    scale, *rest = dice
    total = min(MOST_OF_A_SUPPORT_SET, sum(ceil(scale * min(MOST_OF_A_CLASS, each)) for each in left))
    weights = [size * 2 ** (2 * number - 1) for size, number in zip(sizes, rest, strict=True)]
    over = total - len(sizes)
    return [min(1 + floor(over * weight / sum(weights)), each) for weight, each in zip(weights, left, strict=True)]


@lru_cache(maxsize=8)
def labelled(seed: int, split: str, classes: int, way: int) -> list[list[int]]:
    """The classes of each of `way` fixed labels: pools of one size, but for one class, drawn by seed and split."""
    order = distinct(raw_numbers(f"{seed}/{split}/labels", classes), classes)
    return [order[label::way] for label in range(way)]


@lru_cache(maxsize=1 << 16)
def divided(split: str, number: int, size: int, share: float) -> tuple[list[int], list[int]]:
    """Images of class `number` with labels, this share of its `size`, and those without: the same for all seeds."""
    order = distinct(raw_numbers(f"{split}/labelled/{number}", size), size)
    count = room_of(size, 0, share)
    return sorted(order[:count]), sorted(order[count:])


def room_of(size: int, unlabelled: int, share: float) -> int:
    """How many images of a class may be support and queries: those with labels, but for what stays `unlabelled`."""
    return size - unlabelled if share == 1 else max(1, floor(share * size + 0.5))


def raw_numbers(stream: str, count: int) -> list[int]:
    """The first `count` of a stream's numbers below 2**64."""
    return np.frombuffer(shake_128(stream.encode()).digest(8 * count), dtype="<u8").tolist()


def _between(count: Count, dice: Iterator[int], most: int | None = None) -> int:
    """The number, or one of the range, `most` at most."""
    if isinstance(count, int):
        return count
    low, high = count
    high = high if most is None else min(high, most)
    return low + next(dice) % (high - low + 1)


def _one_of(groups: list[Numbers], way: int, dice: Iterator[int]) -> Numbers:
    """A group that has so many classes."""
    enough = [group for group in groups if len(group) >= way]
    return enough[next(dice) % len(enough)]


def distinct(raw: Sequence[int], n: int) -> list[int]:
    """As many distinct numbers below n as there are raw ones: the first swaps of a Fisher-Yates shuffle."""
    moved: dict[int, int] = {}
    drawn = []
    for i, number in enumerate(raw):
        j = i + number % (n - i)  # of 2**64 values: the bias of the remainder is below n / 2**64
        drawn.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return drawn


def _other_queries(numbers: list[list[int]], shots: list[int], sizes: list[int], stream: str) -> list[list[int]]:
    """The raw numbers of each class, those of its queries drawn anew from `stream`, as many as its share allows.

    As many queries in all, and the same support set, as without. Shares of queries are by Dirichlet's law with
    concentration 2 (Veilleux et al., NeurIPS 2021, https://arxiv.org/abs/2204.11181).
    """
    total = sum(map(len, numbers)) - sum(shots)
    raw = iter(raw_numbers(stream, 2 * len(shots) + total))
    dice = [(next(raw) + 0.5) / 2**64 for _ in range(2 * len(shots))]
    shares = [-log(dice[2 * i] * dice[2 * i + 1]) for i in range(len(shots))]  # a Gamma(2) each
    counts = apportioned(total, shares, [size - shot for size, shot in zip(sizes, shots, strict=True)])
    return [
        own[:shot] + [next(raw) for _ in range(count)] for own, shot, count in zip(numbers, shots, counts, strict=True)
    ]


def apportioned(total: int, shares: Sequence[float], most: Sequence[int]) -> list[int]:
    """`total` divided by `shares` into whole numbers, none above its `most`: what is over goes to the others."""
    counts = [0] * len(shares)
    while left := total - sum(counts):
        free = [i for i, count in enumerate(counts) if count < most[i]]
        exact = {i: left * shares[i] / sum(shares[j] for j in free) for i in free}
        floors = {i: int(exact[i]) for i in free}
        largest_rests = sorted(free, key=lambda i: floors[i] - exact[i])[: left - sum(floors.values())]
        for i in free:
            counts[i] = min(counts[i] + floors[i] + (i in largest_rests), most[i])
    return counts


def _without(images: Sequence[int], taken: list[int]) -> list[int]:
    gone = set(taken)
    return [i for i in images if i not in gone]
