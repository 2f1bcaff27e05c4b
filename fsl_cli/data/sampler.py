"""An episode is a function of (seed, split, index), and of nothing else.

Not of workers, ranks, the meta-batch, restarts or the algorithm: this is why several processes equal one,
why a resumed run equals an uninterrupted one, and why two runs can be compared episode by episode.
The random numbers are the bytes of SHAKE-128 over those three, so no library's generator can change them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import shake_128
from typing import Any, Literal, NamedTuple

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Count = int | Sequence[int]  # a number, or the least and the most of a range to draw from
Queries = int | Literal["all"]  # images of each class, or all that are left of it


class Shape(NamedTuple):
    """N-way k-shot episodes: a range of ways is drawn from for each episode, one of shots for each class."""

    way: Count
    shot: Count
    query: Queries


class Episode(NamedTuple):
    """One task, as numbers. The order of `classes` is the order of the labels."""

    classes: list[int]  # drawn without replacement, in random order: labels carry no meaning
    support: list[list[int]]  # for each class, which of its images
    query: list[list[int]]  # likewise, disjoint from support


class Sampler(NamedTuple):
    """Draws episodes from classes with `sizes[c]` images each."""

    sizes: Numbers  # (classes,) images of each class
    way: Count
    shot: Count
    query: Queries
    groups: list[Numbers] | None = None  # the classes of an episode come from one of these, if given

    def episode(self, seed: int, split: str, index: int) -> Episode:
        """Episode number `index` of the stream that (seed, split) names; its cost grows with its images only."""
        stream = f"{seed}/{split}/{index}"
        # apart from the rest, which fixed shapes share
        dice = iter(raw_numbers(f"{stream}/shape", 2 + largest(self.way)))
        way = _between(self.way, dice)
        pool = self._pool(way, dice)
        drawn = distinct(raw_numbers(stream, way), len(self.sizes) if pool is None else len(pool))
        classes = drawn if pool is None else pool[drawn].tolist()
        sizes = self.sizes[classes].tolist()
        least = 1 if self.query == "all" else self.query
        shots = [_between(self.shot, dice, size - least) for size in sizes]
        each = [shot if self.query == "all" else shot + self.query for shot in shots]
        raw = iter(raw_numbers(stream, way + sum(each))[way:])
        images = [distinct([next(raw) for _ in range(n)], size) for n, size in zip(each, sizes, strict=True)]
        support = [drawn[:shot] for drawn, shot in zip(images, shots, strict=True)]
        if self.query == "all":
            return Episode(classes, support, [_others(own, n) for own, n in zip(support, sizes, strict=True)])
        return Episode(classes, support, [drawn[shot:] for drawn, shot in zip(images, shots, strict=True)])

    def outside(self, seed: int, split: str, index: int) -> tuple[list[int], list[int]]:
        """Classes and image numbers of images whose classes the episode does not have, one for each of its queries.

        From a stream of its own, so the episode stays as it is. There are fewer where such classes lack images, and
        none where there is no such class.
        """
        episode = self.episode(seed, split, index)
        count = sum(map(len, episode.query))
        others = np.setdiff1d(np.arange(len(self.sizes)), episode.classes)
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

    def _pool(self, way: int, dice: Iterator[int]) -> Numbers | None:
        """The classes of one group that has enough of them; None: all classes."""
        if self.groups is None:
            return None
        enough = [group for group in self.groups if len(group) >= way]
        return enough[next(dice) % len(enough)]


def smallest(count: Count) -> int:
    """The number, or the least of the range."""
    return count if isinstance(count, int) else count[0]


def largest(count: Count) -> int:
    """The number, or the most of the range."""
    return count if isinstance(count, int) else count[1]


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


def distinct(raw: Sequence[int], n: int) -> list[int]:
    """As many distinct numbers below n as there are raw ones: the first swaps of a Fisher-Yates shuffle."""
    moved: dict[int, int] = {}
    drawn = []
    for i, number in enumerate(raw):
        j = i + number % (n - i)  # of 2**64 values: the bias of the remainder is below n / 2**64
        drawn.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return drawn


def _others(drawn: list[int], n: int) -> list[int]:
    taken = set(drawn)
    return [i for i in range(n) if i not in taken]
