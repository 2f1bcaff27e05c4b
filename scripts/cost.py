"""How the cost of a test episode grows with way, shot and query, for methods that compare or solve.

python scripts/cost.py [rounds=7] [algo=protonet,rfs]

For each method the CPU time of adapting to a 5-way 5-shot episode and classifying 80 queries, and the power at which it
grows when the ways (of as many queries in all), the shots or the queries become four times as many: 1 is linear, below
1 a fixed cost shows. First on features of 640 numbers, the head alone; then with Conv4 on images of 28 pixels, as
without a cache of features. The least of the rounds is taken, as other work on the machine only adds.
"""

from __future__ import annotations

import math
import sys
import time

import torch

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.episodes import Examples
from fsl_cli.experiment.allocator import keep_memory
from fsl_cli.settings.binding import build, demand_fit
from fsl_cli.settings.compose import compose

METHODS = {
    "protonet": ["algo=protonet"],
    "protonet, cosine": ["algo=protonet", "algo.distance=cosine"],
    "matching": ["algo=matching"],
    "matching, context": ["algo=matching", "algo.context=true"],
    "siamese": ["algo=siamese"],
    "relation": ["algo=relation"],
    "simpleshot": ["algo=simpleshot"],
    "baseline": ["algo=baseline"],
    "baselinepp": ["algo=baselinepp"],
    "rfs": ["algo=rfs"],
    "metabaseline": ["algo=metabaseline"],
    "r2d2": ["algo=r2d2", "backbone=conv4"],
    "metaoptnet": ["algo=metaoptnet"],
    "metaoptnet, ridge": ["algo=metaoptnet", "algo.head=ridge"],
    "feat": ["algo=feat"],
}
BASE = {"way": 5, "shot": 5, "query": 16}
TIMES = 4
GROWN = {
    "way": {"way": 5 * TIMES, "shot": 5, "query": 16 // TIMES},
    "shot": {**BASE, "shot": 5 * TIMES},
    "query": {**BASE, "query": 16 * TIMES},
}
SIZE = 28  # pixels


def built(words: list[str], features: bool) -> Algorithm:
    """A method in evaluation mode, on Conv4, or for 640 features that are given."""
    torch.manual_seed(0)
    backbone = ["backbone=resnet12", "backbone.average=true"] if features else []
    values = demand_fit(compose([*words, *backbone, "data=glyphs"]).values)
    net = build(values.backbone, channels=1, size=SIZE)
    net.precomputed = features
    algorithm: Algorithm = build(values.algo, backbone=net, train_classes=64)
    return algorithm.eval()


def images(way: int, count: int, features: bool) -> Examples:
    """`count` examples of each class, classes far enough apart that solvers have work as usual."""
    shape = (640,) if features else (1, SIZE, SIZE)
    x = torch.randn(way, 1, *shape) + torch.randn(way, count, *shape)
    return Examples(x.flatten(0, 1).unsqueeze(0), torch.arange(way).repeat_interleave(count).unsqueeze(0))


def seconds(algorithm: Algorithm, features: bool, rounds: int, way: int, shot: int, query: int) -> float:
    """The least CPU time of an episode."""
    support, queries = images(way, shot, features), images(way, query, features)
    found = []
    with torch.no_grad():
        for _ in range(rounds + 1):  # the first warms up
            started = time.process_time()
            algorithm.adapt(support)(queries.x)
            found.append(time.process_time() - started)
    return min(found[1:])


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    rounds, chosen = int(given.get("rounds", 7)), given.get("algo", "").split(",")
    torch.set_num_threads(1)
    keep_memory()
    for features in (True, False):
        print(f"\n| {'640 features' if features else 'Conv4, 28 pixels'} | ms | way | shot | query |")
        print("|---|---|---|---|---|")
        for name, words in METHODS.items():
            algorithm = built(words, features) if name in chosen or chosen == [""] else None
            if algorithm is None or (features and name == "relation"):  # which compares maps
                continue
            base = seconds(algorithm, features, rounds, **BASE)
            grown = [seconds(algorithm, features, rounds, **sizes) for sizes in GROWN.values()]
            powers = [f"{math.log(value / base, TIMES):.2f}" for value in grown]
            print(f"| {name} | {1000 * base:.1f} | {' | '.join(powers)} |", flush=True)


if __name__ == "__main__":
    main()
