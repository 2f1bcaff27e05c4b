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
import platform
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

GLYPHS = ["data.train_classes=100", "data.val_classes=5", "data.test_classes=5"]
SMALL = [*GLYPHS, "algo.frozen=nothing"]  # the norms adapt too, as higher and torchopt have it
LARGE = [*SMALL, "data.size=84", "backbone.halve=pool", "backbone.filters=32", "meta_batch=4", "algo.inner_lr=0.01"]
CASES = {  # name -> algorithm, words, channels
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


class Sides(NamedTuple):
    """A case: each side's network, and what leaves a meta-gradient in it."""

    gather: Callable[[int], Any]  # meta-iteration -> Episodes
    modules: dict[str, Any]
    backward: dict[str, Backward]


def sides(case: str) -> Sides:
    """fsl, the plain loop, and for MAML the peers, all with the same first weights."""
    warnings.simplefilter("ignore")  # of the peers
    algo, words, channels = CASES[case]
    bench = workbench(algo, words, channels)
    ours = bench.modules["fsl"]
    modules = dict(bench.modules)
    backward: dict[str, Backward] = {name: partial(_backward, loss) for name, loss in bench.losses.items()}
    if algo == "maml":
        for name, peer in (("higher", higher_maml), ("torchopt", torchopt_maml)):
            modules[name] = copy.deepcopy(modules["plain"])
            backward[name] = peer(modules[name], ours.inner_lr, ours.inner_steps)
    return Sides(bench.gather, modules, backward)


def check(case: str) -> None:
    """Raises AssertionError where meta-gradients differ."""
    gather, modules, backward = sides(case)
    first = gather(0)
    in_double = first._replace(**{part: doubled(getattr(first, part)) for part in ("support", "query")})
    reference: torch.Tensor | None = None
    for name, module in modules.items():
        order = list(module.parameters()) if name != "fsl" else copy_weights(modules["fsl"], modules["plain"])
        module.double()
        backward[name](in_double)
        found = torch.cat([parameter.grad.flatten() for parameter in order if parameter.grad is not None])
        reference = found if reference is None else reference
        assert (found - reference).norm() < 1e-6 * reference.norm(), f"{name}: another meta-gradient than fsl's"


def compare(case: str, rounds: int) -> dict[str, float]:
    """Median seconds per step of each side."""
    gather, modules, backward = sides(case)
    if CASES[case][0] == "protonet":  # in other digits, so not checked; its accuracy is measured by training
        modules["fsl-bf16"] = copy.deepcopy(modules["fsl"])
        backward["fsl-bf16"] = partial(_in_bfloat16, modules["fsl-bf16"].loss)
    seconds: dict[str, list[float]] = {}
    steps = {name: trained(backward[name], module) for name, module in modules.items()}
    for suffix in ("", "+m"):
        if suffix:
            keep_memory()
        for turn in range(rounds + 1):
            episodes = gather(turn)
            for name, step in steps.items():
                started = time.perf_counter()
                step(episodes)
                if turn:  # the first warms up
                    seconds.setdefault(name + suffix, []).append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


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
    rounds, results = int(given.get("rounds", "7")), {}
    for case in given.get("case", ",".join(CASES)).split(","):
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:  # glibc's setting cannot be taken back
            pool.apply(check, (case,))
            results[case] = pool.apply(compare, (case, rounds))
        own = results[case]["fsl+m"]
        for name, seconds in results[case].items():
            print(f"{case:<12} {name:<11} {seconds:8.3f} s   fsl+m is {seconds / own:.2f} times as fast", flush=True)
    where = {"torch": torch.__version__, "threads": torch.get_num_threads(), "processor": platform.processor()}
    found = {"seconds per step": results, "rounds": rounds, "load": os.getloadavg(), **where}
    Path(words[0]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
