"""How far a head that nobody validated can be believed: what its support set alone tells, each picture judged unseen.

What it cannot tell: the heads that judge have learned from a fifth fewer pictures, or half, so the temperature makes
the one in use less sure than it may be; and strangers are played by classes of the set, where real ones may be more
like these, or less.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.experiment.calibration import Judged, calibration_error, fit_temperature, nll
from fsl_cli.experiment.unknowns import OpenLogits, fit_unknown, levels_of, score
from fsl_cli.runs.records import Calibration
from fsl_cli.use import rounds

# So few pictures cannot choose. Among 2 to 50 classes of miniImageNet, by nearest mean (scripts/strangers.py), the
# largest logit tells strangers about as well as the other scores do, and of drawings and noise four in five, where the
# largest probability tells a third.
SCORE = "logit"
HOW = "fitted on the support set, each picture judged by the others"


def calibration_of(algorithm: Algorithm, features: Tensor, y: Tensor) -> Calibration | None:
    """A temperature, and what tells strangers, for a head on features (n, d) with labels (n,).

    The threshold is by all classes at once, as in use; how likely strangers are below it, by heads from which
    classes are hidden. None where fewer than two classes have two pictures, or no picture is judged alone.
    """
    counts = y.bincount()
    if algorithm.sees_queries or int((counts > 1).sum()) < 2:
        return None
    found = rounds.judged(algorithm, features, y)
    known = [Judged(found.logits.cpu(), found.y.cpu())]
    temperature = fit_temperature(known)
    sides = [OpenLogits(*(part.cpu() for part in each)) for each in rounds.strangers(algorithm, features, y)]
    unknown = fit_unknown(sides, temperature, [SCORE])
    told = unknown._asdict() if unknown else {}
    if unknown:
        known_scores = score(SCORE, known[0].logits, temperature) + _gain(algorithm, features, y, found, temperature)
        told |= {"levels": levels_of(known_scores), "known": len(found.y)}
    shots = [int(counts.min()), int(counts.max())]
    return Calibration(
        step=0,
        way=len(counts),
        shot=shots[0] if shots[0] == shots[1] else shots,
        norm="running",
        episodes=0,
        temperature=temperature,
        nll=nll(known),
        nll_calibrated=nll(known, temperature),
        ece=calibration_error(known),
        ece_calibrated=calibration_error(known, temperature),
        **told,
    )


def _gain(algorithm: Algorithm, features: Tensor, y: Tensor, found: rounds.Judged, temperature: float) -> float:
    """How much a score rises when each class is learned from all of its pictures, not only from those of a round.

    Told by the best of the other classes, in which the picture that is judged has no part.
    """
    own = F.one_hot(found.y, found.logits.shape[1]).bool()
    whole = rounds.said(algorithm, features, y, features[found.rows])
    after, before = (score(SCORE, each.masked_fill(own, -torch.inf), temperature) for each in (whole, found.logits))
    return max(0.0, float((after - before).mean()))
