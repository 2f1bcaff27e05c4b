"""Babble: invented languages, written here in a second; needs no download.

A class is a language: a Markov chain over the alphabet and the blank, whose transitions are drawn at random, a few of
them likely after each letter. A text is so many letters of it. The random numbers are the bytes of SHAKE-128 over
(seed, class) and the arithmetic is +, *, / and comparisons only, which IEEE 754 rounds alike everywhere: the same texts
on every machine, and language 42 is the same however many are drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import shake_128
from itertools import islice
from typing import Any

import numpy as np

from fsl_cli.data.copies import divided
from fsl_cli.data.store import DataSet, Images, cache_folder, open_store
from fsl_cli.data.texts import as_items
from fsl_cli.ranges import Count, Natural

LETTERS = " abcdefghijklmnopqrstuvwxyz"
TONGUE = 2  # raise it when what is written changes: older caches are then left alone
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def babble(
    train_classes: Count = 300,
    val_classes: Count = 50,
    test_classes: Count = 100,
    texts: Count = 20,
    size: Count = 64,
    seed: Natural = 0,
    cache: str | None = None,
) -> DataSet:
    """`texts` of `size` letters in each language: train first, then val, then test."""
    counts = {"train": train_classes, "val": val_classes, "test": test_classes}

    def drawn() -> Iterable[tuple[str, Images]]:
        for number in range(sum(counts.values())):
            yield f"language {number:03d}", as_items(write(seed, number, texts, size), size)

    recipe = {"tongue": TONGUE, "classes": sum(counts.values()), "texts": texts, "size": size, "seed": seed}
    store = open_store(cache_folder(cache), "babble", {**recipe, "items": "texts"}, drawn)
    names = iter(store.names)
    lists = {part: list(islice(names, count)) for part, count in counts.items()}
    return divided("babble", store, "seeded", lists, "none")._replace(items="texts")


def write(seed: int, number: int, texts: int, size: int) -> list[str]:
    """So many texts in language `number`; fewer or shorter ones are not the beginning of more."""
    count = len(LETTERS)
    weights = _peaked(_uniform(f"babble/{seed}/{number}", count * count))  # (from, to)
    ends = weights.reshape(count, count).cumsum(1)
    random = _uniform(f"babble/{seed}/{number}/texts", texts * (size + 1)).reshape(size + 1, texts)
    letters = np.empty((size, texts), dtype=np.int64)
    at = (random[0] * count).astype(np.int64)
    for place in range(size):
        at = (random[place + 1, :, None] * ends[at, -1:] >= ends[at]).sum(1).clip(max=count - 1)
        letters[place] = at
    return ["".join(LETTERS[letter] for letter in column) for column in letters.T]


def _peaked(uniform: Numbers) -> Numbers:
    """Their eighth powers: a few are large."""
    for _ in range(3):
        uniform = uniform * uniform
    return uniform


def _uniform(stream: str, count: int) -> Numbers:
    raw = shake_128(stream.encode()).digest(8 * count)
    return np.frombuffer(raw, dtype="<u8") / 2.0**64
