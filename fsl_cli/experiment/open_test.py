"""A test with pictures of unknown classes: as many as there are queries, in each of the usual test episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from fsl_cli.errors import UserError
from fsl_cli.experiment.judging import Open
from fsl_cli.experiment.unknowns import auroc, score, threshold
from fsl_cli.runs.records import Calibration
from fsl_cli.stats import mean_interval

FALSE_ALARMS = 0.05  # share of the known queries that are called unknown


def open_results(episodes: Sequence[Open], calibration: Calibration | None) -> dict[str, Any]:
    """Means over the episodes, with half the width of their 95% intervals.

    auroc: of two pictures, one known and one not, how often the known one scores higher. caught: the share of the
    unknown below the score that 5% of these known queries are below. At the threshold of validation for 5%:
    accuracy, the share of the known that are told their class, and false_alarms, that of the known called unknown.
    Raises UserError where the run has no score, or the split no other classes.
    """
    usable = [each for each in episodes if len(each.sides.inside) and len(each.sides.outside)]
    if calibration is None or calibration.score is None:
        raise UserError(
            "open=true needs a score of what is unknown, which is fitted on validation episodes: there are none with "
            "pictures of another class, or calibrate=false. Try fewer ways, or calibrate=true."
        )
    if not usable:
        raise UserError("open=true: the test split has no class besides those of an episode. Try fewer ways.")
    name, temperature = calibration.score, calibration.temperature
    scores = [[score(name, part, temperature) for part in each.sides] for each in usable]
    limit = float(torch.cat([inside for inside, _ in scores]).quantile(FALSE_ALARMS))
    own = threshold(calibration.levels, FALSE_ALARMS)
    columns = {
        "auroc": [auroc(inside, outside) for inside, outside in scores],
        "caught": [_below(outside, limit) for _, outside in scores],
        "accuracy": [_told(each, inside, own) for each, (inside, _) in zip(usable, scores, strict=True)],
        "false_alarms": [_below(inside, own) for inside, _ in scores],
    }
    found: dict[str, Any] = {"score": name, "episodes": len(usable)}
    for column, values in columns.items():
        if all(map(math.isfinite, values)):
            found[column], found[f"{column}_interval"] = mean_interval(values)
    return found


def _below(scores: torch.Tensor, limit: float) -> float:
    return float((scores < limit).double().mean())


def _told(episode: Open, scores: torch.Tensor, limit: float) -> float:
    """The share of the known queries that are not called unknown, and are told their class."""
    logits, y = episode.known
    if len(scores) != len(y):  # a class was left out of the support set
        return float("nan")
    return float(((logits.argmax(-1) == y) & (scores >= limit)).double().mean())
