"""Seconds per training step of fsl, a plain loop, and public libraries (pip install 'fsl-cli[peers]') on the same work.

  python scripts/compare_speed.py FILE.json [case=maml-28-1,protonet-84] [rounds=7]

All sides of a case run in one process, alternating, after they have given the same meta-gradient in double precision
in another: what was allocated before changes how glibc goes on. fsl tells glibc to keep its memory
(fsl_cli/experiment/allocator.py), which speeds up everything in the process, so the others are timed first without
that setting, as they come, and then with it (+m), fsl between them each time.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from fsl_cli.doctor.plain_loop import copy_weights
from fsl_cli.doctor.speed import trained, workbench
from fsl_cli.experiment.allocator import keep_memory
from fsl_cli.runs.environment import environment

GLYPHS = ["data.train_classes=100", "data.val_classes=25", "data.test_classes=25"]
SMALL = [*GLYPHS, "algo.frozen=nothing"]  # the norms adapt too, as higher and torchopt have it
LARGE = [*SMALL, "data.size=84", "backbone.halve=pool", "backbone.filters=32", "meta_batch=4", "algo.inner_lr=0.01"]
RECIPE = [*GLYPHS, "train_query=1"]  # of MAML on Omniglot, 5w1s: K queries a class
TWENTY = [*RECIPE, "way=20", "meta_batch=16", "algo.inner_steps=5", "algo.inner_lr=0.1"]
CASES = {  # name -> algorithm, words, channels
    "maml-recipe": ("maml", [*RECIPE, "algo.frozen=nothing"], 1),
    "maml-recipe-own": (
        "maml",
        RECIPE,
        1,
    ),  # each side as it comes: the recipe's norms stay, higher's and torchopt's adapt
    "maml-recipe-20": ("maml", TWENTY, 1),
    "fomaml-recipe": ("maml", [*RECIPE, "algo.first_order=true"], 1),
    "fomaml-recipe-20": ("maml", [*TWENTY, "algo.first_order=true"], 1),
    "maml-28-1": ("maml", SMALL, 1),
    "maml-28-5": ("maml", [*SMALL, "algo.inner_steps=5", "algo.inner_lr=0.1"], 1),
    "maml-84-5": ("maml", [*LARGE, "algo.inner_steps=5"], 3),
    "protonet-28": ("protonet", GLYPHS, 1),
    "protonet-84": ("protonet", [*GLYPHS, "data.size=84"], 3),
}
Backward = Callable[[Any], None]  # takes Episodes, leaves their meta-gradient in the network


def higher_maml(network: Any, lr: float, steps: int) -> Backward:
    """As in higher's examples/maml-omniglot.py: each task's backward pass at once."""
    import higher

    inner = torch.optim.SGD(network.parameters(), lr)

    def backward(episodes: Any) -> None:
        for sx, sy, qx, qy in zip(*episodes.support, *episodes.query, strict=True):
            with higher.innerloop_ctx(network, inner, copy_initial_weights=False) as (fast, optimizer):
                for _ in range(steps):
                    optimizer.step(F.cross_entropy(fast(sx), sy))
                (F.cross_entropy(fast(qx), qy) / len(episodes.support.x)).backward()

    return backward


def torchopt_maml(network: Any, lr: float, steps: int) -> Backward:
    """As in torchopt's examples/few-shot/maml_omniglot.py: one backward pass for the meta-batch."""
    import torchopt

    inner = torchopt.MetaSGD(network, lr=lr)

    def backward(episodes: Any) -> None:
        losses = []
        start = torchopt.extract_state_dict(network, by="reference"), torchopt.extract_state_dict(inner, by="reference")
        for sx, sy, qx, qy in zip(*episodes.support, *episodes.query, strict=True):
            for _ in range(steps):
                inner.step(F.cross_entropy(network(sx), sy))
            losses.append(F.cross_entropy(network(qx), qy))
            torchopt.recover_state_dict(network, start[0])
            torchopt.recover_state_dict(inner, start[1])
        torch.stack(losses).mean().backward()

    return backward


PEERS = {"higher": higher_maml, "torchopt": torchopt_maml}


class Sides(NamedTuple):
    """A case: each side's network, and what leaves a meta-gradient in it."""

    gather: Callable[[int], Any]  # meta-iteration -> Episodes
    modules: dict[str, Any]
    backward: dict[str, Backward]


def sides(case: str) -> Sides:
    """fsl, the plain loop, and for second-order MAML the peers, all with the same first weights."""
    warnings.simplefilter("ignore")  # of the peers
    algo, words, channels = CASES[case]
    bench = workbench(algo, words, channels)
    ours = bench.modules["fsl"]
    modules = dict(bench.modules)
    backward: dict[str, Backward] = {name: partial(_backward, loss) for name, loss in bench.losses.items()}
    if algo == "maml" and not ours.first_order:
        for name, peer in PEERS.items():
            modules[name] = copy.deepcopy(modules["plain"])
            backward[name] = peer(modules[name], ours.inner_lr, ours.inner_steps)
    return Sides(bench.gather, modules, backward)


def check(case: str) -> None:
    """Raises AssertionError where meta-gradients differ that are of the same work."""
    gather, modules, backward = sides(case)
    first = gather(0)
    in_double = first._replace(**{part: doubled(getattr(first, part)) for part in ("support", "query")})
    reference: torch.Tensor | None = None
    for name, module in modules.items():
        if "algo.frozen=nothing" not in CASES[case][1] and name in PEERS:  # which adapt the norms too
            continue
        order = list(module.parameters()) if name != "fsl" else copy_weights(modules["fsl"], modules["plain"])
        module.double()
        backward[name](in_double)
        found = torch.cat([parameter.grad.flatten() for parameter in order if parameter.grad is not None])
        reference = found if reference is None else reference
        assert (found - reference).norm() < 1e-6 * reference.norm(), f"{name}: another meta-gradient than fsl's"


def compare(case: str, rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds per step of each side, by the clock and of all cores' time."""
    gather, modules, backward = sides(case)
    if CASES[case][0] == "protonet":  # in other digits, so not checked; its accuracy is measured by training
        modules["fsl-bf16"] = copy.deepcopy(modules["fsl"])
        backward["fsl-bf16"] = partial(_in_bfloat16, modules["fsl-bf16"].loss)
    seconds: dict[str, list[tuple[float, float]]] = {}
    steps = {name: trained(backward[name], module) for name, module in modules.items()}
    for suffix in ("", "+m"):
        if suffix:
            keep_memory()
        for turn in range(rounds + 1):
            episodes = gather(turn)
            for name, step in steps.items():
                started, before = time.perf_counter(), time.process_time()
                step(episodes)
                taken = time.perf_counter() - started, time.process_time() - before
                if turn:  # the first warms up
                    seconds.setdefault(name + suffix, []).append(taken)
    return {
        name: (median(clock for clock, _ in both), median(cores for _, cores in both)) for name, both in seconds.items()
    }


def product(size: int = 1024, rounds: int = 20) -> float:
    """Multiplications and additions a second in a product of two square matrices, the best of some."""
    a, seconds = torch.randn(size, size), []
    for _ in range(rounds):
        started = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def _backward(loss: Callable[[Any], Any], episodes: Any) -> None:
    loss(episodes).backward()


def _in_bfloat16(loss: Callable[[Any], Any], episodes: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):  # what trainer.precision=bf16-mixed does
        value = loss(episodes)
    value.backward()


def doubled(examples: Any) -> Any:
    return examples._replace(x=examples.x.double())


def main(words: list[str]) -> None:
    given = dict(word.partition("=")[::2] for word in words[1:])
    rounds, results, cores = int(given.get("rounds", "7")), {}, {}
    for case in given.get("case", ",".join(CASES)).split(","):
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:  # glibc's setting cannot be taken back
            pool.apply(check, (case,))
            found = pool.apply(compare, (case, rounds))
        results[case], cores[case] = ({name: both[i] for name, both in found.items()} for i in (0, 1))
        own = results[case]["fsl+m"]
        for name, (seconds, of_cores) in found.items():
            told = f"{seconds:8.3f} s {of_cores:8.3f} CPU s   fsl+m is {seconds / own:.2f} times as fast"
            print(f"{case:<16} {name:<11} {told}", flush=True)
    where = {"torch": torch.__version__, "threads": torch.get_num_threads(), "processor": environment()["processor"]}
    about = {"GFLOP/s of a product": product() / 1e9, "rounds": rounds, "load": os.getloadavg(), **where}
    text = json.dumps({"seconds per step": results, "CPU seconds per step": cores, **about}, indent=1)
    Path(words[0]).write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
