"""Every picture of a support set judged by a head that has not seen it: what a head is worth, from the set alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.episodes import Examples
from fsl_cli.experiment.unknowns import OpenLogits

ROUNDS = 5  # at most; a class of five pictures or fewer loses one of them in each
COSTLY = 2e8  # classes times the cube of pictures, about 33 classes of 5: beyond, an SVM takes minutes


def costly(y: Tensor) -> bool:
    """Whether heads for these labels (n,) are work for several cores, and an SVM's too much."""
    return len(y.bincount()) * len(y) ** 3 > COSTLY


@contextmanager
def on_one_core(y: Tensor) -> Iterator[None]:
    """While inside, heads for these labels (n,) are solved for on one core, unless that is costly.

    Their operations are so small that several cores gain nothing, and where another program has one of the cores they
    wait for each other in each: fifty pictures of ten classes then took minutes instead of seconds.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if costly(y) else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Judged(NamedTuple):
    """A head's logits for pictures that it had not seen."""

    logits: Tensor  # (n, way)
    y: Tensor  # (n,)
    rows: Tensor  # (n,) which pictures these are


def rounds(y: Tensor) -> Tensor:
    """The round in which each picture of these labels (n,) is judged; -1: none, as it is the only one of its class."""
    counts, turn = y.bincount(), torch.zeros_like(y)
    for label in range(len(counts)):
        own = (y == label).nonzero().squeeze(1)
        turn[own] = torch.arange(len(own), device=y.device) % ROUNDS
    return torch.where(counts[y] > 1, turn, -1)


@torch.no_grad()
def judged(algorithm: Algorithm, features: Tensor, y: Tensor) -> Judged:
    """Each picture, features (n, d) and labels (n,), judged by a head that learned from others; all classes known.

    Empty where no class has two pictures.
    """
    turn = rounds(y)
    logits, rows = [], []
    for number in range(int(turn.max()) + 1):
        out, rest = ((turn == number).nonzero().squeeze(1), (turn != number).nonzero().squeeze(1))
        logits.append(said(algorithm, features[rest], y[rest], features[out]))
        rows.append(out)
    where = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long)
    return Judged(torch.cat(logits) if logits else torch.zeros(0, int(y.max()) + 1), y[where], where)


@torch.no_grad()
def strangers(algorithm: Algorithm, features: Tensor, y: Tensor) -> list[OpenLogits]:
    """Logits for unseen pictures, of the classes that a head has learned and of others, round by round.

    In each round a share of the classes is left out whole, and a picture in five, or one, of each of the others. Of
    two classes none can be left out: what is said of the other class alone stands for it.
    """
    counts, turn = y.bincount(), rounds(y)
    way = len(counts)
    if way == 2:
        found = judged(algorithm, features, y)
        return [OpenLogits(found.logits, found.logits.gather(1, 1 - found.y.unsqueeze(1)))]
    shares = 3 if way == 3 else min(ROUNDS, way // 2)  # two classes stay in each round
    sides = []
    for number in range(shares):
        hidden = torch.arange(way, device=y.device) % shares == number
        label = (~hidden).cumsum(0) - 1  # of the classes that stay, in the head that does not know the others
        shown, mine = ~hidden[y], turn == number % counts.clamp(max=ROUNDS)[y]
        out = shown & mine  # never its class's only one
        rest = shown & ~out
        logits = said(algorithm, features[rest], label[y[rest]], torch.cat([features[out], features[~shown]]))
        sides.append(OpenLogits(logits[: int(out.sum())], logits[int(out.sum()) :]))
    return sides


@torch.no_grad()
def said(algorithm: Algorithm, support: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """Logits (m, way) of features (m, d), by a head that learns from features (n, d) with labels (n,)."""
    classify = algorithm.adapt(Examples(support.unsqueeze(0), y.unsqueeze(0)))
    return classify(queries.unsqueeze(0)).squeeze(0)
