"""Every picture of a support set judged by a head that has not seen it: what a head is worth, from the set alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.episodes import Examples

ROUNDS = 5  # at most; a class of five pictures or fewer loses one of them in each


class Judged(NamedTuple):
    """What a head said of pictures that it had not seen."""

    logits: Tensor  # (n, way)
    y: Tensor  # (n,)
    rows: Tensor  # (n,) which pictures these are


def rounds(y: Tensor) -> Tensor:
    """In which round each picture of these labels (n,) is judged; -1: in none, as it is its class's only one."""
    counts, turn = y.bincount(), torch.zeros_like(y)
    for label in range(len(counts)):
        own = (y == label).nonzero().squeeze(1)
        turn[own] = torch.arange(len(own), device=y.device) % ROUNDS
    return torch.where(counts[y] > 1, turn, -1)


@torch.no_grad()
def judged(algorithm: Algorithm, features: Tensor, y: Tensor) -> Judged:
    """Each picture, features (n, d) and labels (n,), by the head that the others teach in its round; all classes known.

    Empty where no class has two pictures.
    """
    turn = rounds(y)
    logits, rows = [], []
    for number in range(int(turn.max()) + 1):
        out, rest = ((turn == number).nonzero().squeeze(1), (turn != number).nonzero().squeeze(1))
        logits.append(_said(algorithm, features[rest], y[rest], features[out]))
        rows.append(out)
    where = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long)
    return Judged(torch.cat(logits) if logits else torch.zeros(0, int(y.max()) + 1), y[where], where)


@torch.no_grad()
def strangers(
    algorithm: Algorithm, features: Tensor, y: Tensor, score: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The `score` (m,) of logits (m, way) of pictures that a head has not seen: of its classes, and of others.

    In each round a share of the classes is left out whole, and some pictures of the others.
    """
    turn, way = rounds(y), int(y.max()) + 1
    count = min(ROUNDS, way // 2)  # two classes stay in each round
    known, unknown = [], []
    for number in range(count):
        hidden = torch.arange(way) % count == number
        label = (~hidden).cumsum(0) - 1  # of the classes that stay, in the head that does not know the others
        shown = ~hidden[y]
        rest, out = shown & (turn != number), shown & (turn == number)
        said = _said(algorithm, features[rest], label[y[rest]], torch.cat([features[out], features[~shown]]))
        scores = score(said)
        known.append(scores[: int(out.sum())])
        unknown.append(scores[int(out.sum()) :])
    return torch.cat(known), torch.cat(unknown)


def _said(algorithm: Algorithm, support: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """Logits (m, way) of features (m, d) by a head that features (n, d) of labels (n,) teach."""
    classify = algorithm.adapt(Examples(support.unsqueeze(0), y.unsqueeze(0)))
    return classify(queries.unsqueeze(0)).squeeze(0)
