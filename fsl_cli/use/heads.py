"""Every head that runs on frozen features, tried on a support set: how good each is, and which to take."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.backbones.base import NO_CHANGES, Backbone, Changes
from fsl_cli.errors import UserError
from fsl_cli.experiment.calibration import Judged, calibration_error, fit_temperature
from fsl_cli.settings.binding import build, demand_fit
from fsl_cli.settings.compose import compose
from fsl_cli.stats import mean_interval, share_interval
from fsl_cli.use import rounds

HEADS = {  # what people call it -> how it is typed
    "nearest mean": ("algo=simpleshot", "algo.transform=L2N"),
    "cosine": ("algo=metabaseline",),
    "ridge": ("algo=metaoptnet", "algo.head=ridge"),
    "logistic": ("algo=rfs", "algo.penalty=10"),
    "SVM": ("algo=metaoptnet", "algo.head=svm"),
}
FALSE_ALARMS = 0.05  # share of known pictures that may be taken for strangers


class GivenFeatures(Backbone):
    """A backbone for features that are known already: it returns them unchanged."""

    norm = "none"
    precomputed = True
    block_channels = ()

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_features, self.map_shape = width, (width, 1, 1)

    def features(self, x: Tensor, n_support: int, changes: Changes = NO_CHANGES) -> Tensor:
        return x


class Tried(NamedTuple):
    """What a head is worth, judged on pictures that it had not seen."""

    head: str
    words: tuple[str, ...]
    accuracy: float  # over all classes at once
    low: float  # its 95% interval
    high: float
    calibration_error: float  # of probabilities by a temperature that other pictures set
    temperature: float
    caught: float  # share of the pictures of unknown classes called unknown, when 5% of the known ones are
    auroc: float  # of telling known and unknown classes apart
    seconds: float
    right: Tensor  # (n,) whether each picture that was judged
    confusion: Any  # (way, way) how many pictures of each class (rows) were given to each (columns)


def head(words: tuple[str, ...], width: int) -> Algorithm:
    """The head that these words choose, on features of this width."""
    settings = demand_fit(compose(["norm=running", "steps=0", "trainer=cpu", *words]).values)
    built: Algorithm = build(settings.algo, backbone=GivenFeatures(width), train_classes=1, teacher=None)
    return built.eval()


def try_heads(features: Tensor, y: Tensor) -> list[Tried]:
    """All of `HEADS` on features (n, d) with labels (n,), the best first.

    Raises UserError where there is nothing to judge by.
    """
    counts = y.bincount()
    if int((counts > 1).sum()) < 2:
        raise UserError("At least two classes need two pictures or more: one to learn from, another to be judged by.")
    names = [name for name in HEADS if not (rounds.costly(y) and name == "SVM")]
    with rounds.on_one_core(y):
        return sorted((_tried(name, HEADS[name], features, y) for name in names), key=lambda each: -each.accuracy)


def recommended(tried: list[Tried]) -> Tried:
    """The best calibrated head of those that are no worse than the best, as far as so many pictures can tell."""
    best, near = tried[0], []
    for each in tried:
        mean, interval = mean_interval((best.right.double() - each.right.double()).tolist())
        near += [each] if not mean > interval else []
    return min(near, key=lambda each: each.calibration_error)


def confusions(counts: Any, classes: list[str], most: int) -> list[tuple[str, str, int]]:
    """The pairs that are confused most often, one way or the other, and how often."""
    both = np.triu(counts + counts.T, 1)
    order = np.argsort(-both, axis=None, kind="stable")[:most]
    pairs = (np.unravel_index(number, both.shape) for number in order)
    return [(classes[i], classes[j], int(both[i, j])) for i, j in pairs if both[i, j]]


def _tried(name: str, words: tuple[str, ...], features: Tensor, y: Tensor) -> Tried:
    started = time.monotonic()
    algorithm = head(words, features.shape[1])
    found = rounds.judged(algorithm, features, y)
    predicted = found.logits.argmax(-1)
    right = predicted == found.y
    temperature = fit_temperature([Judged(found.logits, found.y)])
    # the highest logit told strangers best, of what was compared on miniImageNet: also its probability, and the energy
    sides = rounds.strangers(algorithm, features, y)
    known, unknown = (torch.cat([-part.amax(-1) for part in parts]) for parts in zip(*sides, strict=True))
    way = int(y.max()) + 1
    confusion = np.zeros((way, way), dtype=np.int64)
    np.add.at(confusion, (found.y.numpy(), predicted.numpy()), 1)
    return Tried(
        name,
        words,
        float(right.double().mean()),
        *share_interval(int(right.sum()), len(right)),
        calibration_error([Judged(_honest(found, rounds.rounds(y)), found.y)]),
        temperature,
        float((unknown > known.quantile(1 - FALSE_ALARMS)).double().mean()),
        float(binary_auroc(torch.cat([known, unknown]), torch.cat([known * 0, unknown * 0 + 1]).long())),
        time.monotonic() - started,
        right,
        confusion,
    )


def _honest(found: rounds.Judged, turn: Tensor) -> Tensor:
    """The logits of each round, over a temperature that the other rounds set."""
    scaled = found.logits.clone()
    for number in turn.unique().tolist():
        own = turn[found.rows] == number
        if own.any() and not own.all():
            scaled[own] /= fit_temperature([Judged(found.logits[~own], found.y[~own])])
    return scaled
