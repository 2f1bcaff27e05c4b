"""An episode is a function of (seed, split, index), and of nothing else.

Not of workers, ranks, the meta-batch, restarts or the algorithm: this is why several processes equal one,
why a resumed run equals an uninterrupted one, and why two runs can be compared episode by episode.
The random numbers are the bytes of SHAKE-128 over those three, so no library's generator can change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import shake_128
from typing import Any, NamedTuple

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Episode(NamedTuple):
    """One task, as numbers. The order of `classes` is the order of the labels."""

    classes: Numbers  # (way,) drawn without replacement, in random order: labels carry no meaning
    support: Numbers  # (way, shot) which of its class's images
    query: Numbers  # (way, query) likewise, disjoint from support


class Sampler(NamedTuple):
    """Draws N-way k-shot episodes from classes with `sizes[c]` images each."""

    sizes: Numbers  # (classes,) images of each class
    way: int
    shot: int
    query: int

    def episode(self, seed: int, split: str, index: int) -> Episode:
        """Episode number `index` of the stream that (seed, split) names; cost way * (shot + query)."""
        each = self.shot + self.query
        count = self.way * (1 + each)
        raw = np.frombuffer(shake_128(f"{seed}/{split}/{index}".encode()).digest(8 * count), dtype="<u8").tolist()
        classes = np.array(_distinct(raw[: self.way], len(self.sizes)))
        draws = [raw[self.way + i * each : self.way + (i + 1) * each] for i in range(self.way)]
        images = np.array([_distinct(draw, int(n)) for draw, n in zip(draws, self.sizes[classes], strict=True)])
        return Episode(classes, images[:, : self.shot], images[:, self.shot :])


def _distinct(raw: Sequence[int], n: int) -> list[int]:
    """As many distinct numbers below n as there are raw ones: the first swaps of a Fisher-Yates shuffle."""
    moved: dict[int, int] = {}
    drawn = []
    for i, number in enumerate(raw):
        j = i + number % (n - i)  # of 2**64 values: the bias of the remainder is below n / 2**64
        drawn.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return drawn
