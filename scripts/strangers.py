"""python scripts/strangers.py FOLDER: what the threshold of fsl predict without a run keeps of its promise.

FOLDER has a folder for each class, of the same number of pictures. Of random classes some pictures are learned from,
the others of these classes are the known, all pictures of the other classes the strangers.
"""

from __future__ import annotations

import sys

import torch

from fsl_cli.episodes import Examples
from fsl_cli.experiment.calibration import Judged, calibration_error, nll
from fsl_cli.experiment.unknowns import auroc, score, threshold
from fsl_cli.stats import mean_interval
from fsl_cli.use.from_support import SCORE, calibration_of
from fsl_cli.use.frozen import frozen_predictor
from fsl_cli.use.heads import HEADS, head
from fsl_cli.use.known import read_support

TASKS = (2, 5), (5, 3), (5, 5), (10, 5), (10, 10), (20, 2), (20, 5), (50, 5)  # classes, pictures of each
DRAWS = 40
RATE = 0.05


@torch.no_grad()
def measure(features: torch.Tensor, way: int, shot: int, draws: int) -> dict[str, list[float]]:
    """Of features (classes, pictures, d), a number for each draw; of the calibration error, one of all draws."""
    classes, each, width = features.shape
    dice, algorithm = torch.Generator().manual_seed(0), head(HEADS["nearest mean"], width)
    found: dict[str, list[float]] = {}
    before, after = [], []
    y, truth = torch.arange(way).repeat_interleave(shot), torch.arange(way).repeat_interleave(each - shot)
    for _ in range(draws):
        order, pictures = torch.randperm(classes, generator=dice), torch.randperm(each, generator=dice)
        own = features[order[:way]][:, pictures]
        support, inside, outside = own[:, :shot].flatten(0, 1), own[:, shot:].flatten(0, 1), features[order[way:]]
        kept = calibration_of(algorithm, support, y)
        assert kept
        classify = algorithm.adapt(Examples(support.unsqueeze(0), y.unsqueeze(0)))
        known, strange = (classify(x.unsqueeze(0))[0] for x in (inside, outside.flatten(0, 1)))
        near, far = (score(SCORE, each, kept.temperature) for each in (known, strange))
        rate = max(RATE, 1 / (kept.known + 1))
        limit = threshold(kept.levels, rate)
        before.append(Judged(known, truth))
        after.append(Judged(known / kept.temperature, truth))
        numbers = {
            "promised": rate,
            "false alarms": float((near < limit).double().mean()),
            "caught": float((far < limit).double().mean()),
            "AUROC": auroc(near, far),
            "accuracy": float((known.argmax(-1) == truth).double().mean()),
        }
        for name, value in numbers.items():
            found.setdefault(name, []).append(value)
    return {
        **found,
        "ECE before": [calibration_error(before)],
        "ECE": [calibration_error(after)],
        "NLL before": [nll(before)],
        "NLL": [nll(after)],
    }


def main(root: str) -> None:
    support = read_support(frozen_predictor(), root, "stop", [])
    names = sorted(set(support.labels))
    features = support.items.unflatten(0, (len(names), -1))  # in the order of the classes
    for way, shot in TASKS:
        cells = []
        for name, values in measure(features, way, shot, DRAWS).items():
            mean, interval = mean_interval(values) if len(values) > 1 else (values[0], 0.0)
            spread = f" ± {interval:.3f}" if interval else ""
            cells.append(f"{name} {mean:.3f}{spread}")
        print(f"{way}-way {shot}-shot: {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
