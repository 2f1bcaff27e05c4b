"""Speed and memory of a training step on this machine, beside a plain loop on the same work."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from fsl_cli.settings.compose import compose

WORK = {
    "maml": (
        "meta_batch=32", "norm=transductive", "backbone.halve=stride", "train_query=15",
        "algo.inner_lr=0.4", "algo.inner_steps=1",
    ),
    "protonet": ("meta_batch=1", "train_way=5", "train_query=15"),
}  # fmt: skip
PEAKS = 4  # how many times a round looks for the machine's peak


Step = Callable[[Any], None]  # takes Episodes


def start_up(rounds: int) -> str:
    """How long commands take that do not need torch."""
    taken = []
    for line in ("--help", "ls", "trian"):
        seconds = []
        for _ in range(rounds):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "fsl_cli", line], capture_output=True)
            seconds.append(time.perf_counter() - started)
        taken.append(f"fsl {line} {median(seconds):.2f} s")
    return "start-up  " + "   ".join(taken)


def speed_line(algo: str, overrides: list[str], rounds: int) -> str:
    from multiprocessing import get_context

    peaks = []
    for name in ("fsl", "plain"):  # in a process of its own each: memory once taken is kept
        with get_context("spawn").Pool(1) as pool:
            peaks.append(pool.apply(peak_memory, (algo, overrides, name)))
    found = _speeds(algo, overrides, rounds)
    return (
        f"{algo:<9} fsl {found.ours:.2f} steps/s ({peaks[0]:.0f} MB), {found.reached:.0%} of this machine's "
        f"{found.peak / 1e9:.0f} GFLOP/s in {found.precision}   "
        f"plain loop {found.plain:.2f} steps/s ({peaks[1]:.0f} MB)   {found.ours / found.plain:.2f} times as fast   "
        f"episodes {found.gather:.2%} of a step"
    )


class Speeds(NamedTuple):
    """What `speed_line` tells of an algorithm."""

    ours: float  # steps a second
    plain: float  # likewise, of the plain loop
    reached: float  # share of the machine's peak that a step of ours reaches
    gather: float  # share of a step that finding its episodes takes
    peak: float  # multiplications and additions a second, see `peak`
    precision: str  # of both


def _speeds(algo: str, overrides: list[str], rounds: int) -> Speeds:
    bench = workbench(algo, overrides)
    steps = _steps(bench)
    seconds: dict[str, list[float]] = {"gather": [], **{name: [] for name in steps}}
    peaks = []
    for index in range(rounds + 2):  # the first two warm up
        started = time.perf_counter()
        episodes = bench.gather(index)
        seconds["gather"].append(time.perf_counter() - started)
        peaks.append(peak(bench.precision))
        for name, step in steps.items():
            started = time.perf_counter()
            step(episodes)
            seconds[name].append(time.perf_counter() - started)
    typical = {name: median(values[2:]) for name, values in seconds.items()}
    whole = typical["fsl"] + typical["gather"]
    highest = max(peaks)
    reached = operations(lambda: steps["plain"](bench.gather(0))) / typical["fsl"] / highest
    plain, name = 1 / (typical["plain"] + typical["gather"]), str(bench.precision).removeprefix("torch.")
    return Speeds(1 / whole, plain, reached, typical["gather"] / whole, highest, name)


def peak(precision: Any) -> float:
    """Multiplications and additions a second, the most that torch reaches here in a large product of matrices.

    A convolution is such a product, and may have the better code: on a processor of AMD it is 2.3 times as fast.
    """
    import torch

    a = torch.randn(1024, 1024, dtype=precision)
    x = torch.randn(16, 64, 32, 57, dtype=precision).to(memory_format=torch.channels_last)
    w = torch.randn(64, 64, 3, 3, dtype=precision).to(memory_format=torch.channels_last)
    work: list[tuple[Callable[[], Any], int]] = [
        (lambda: a @ a, 2 * 1024**3),
        (lambda: torch.conv2d(x, w, padding=1), 2 * 16 * 32 * 57 * 64 * 64 * 9),
    ]
    found = []
    for function, count in work * PEAKS:
        started = time.perf_counter()
        function()
        found.append(count / (time.perf_counter() - started))
    return max(found)


def operations(function: Callable[[], Any]) -> int:
    """Multiplications and additions in the convolutions and products of torch that `function` computes."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def peak_memory(algo: str, overrides: list[str], name: str) -> float:
    """MB that training steps add to this process at their peak; nan where the system does not tell."""
    bench = workbench(algo, overrides)
    steps, episodes = _steps(bench), bench.gather(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak of drawing the data set
    except OSError:
        return math.nan
    before = _status("VmRSS")
    for _ in range(3):
        steps[name](episodes)
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    """A field of Linux's /proc/self/status, in kB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


class Bench(NamedTuple):
    """The same work in fsl and in a plain loop, from the same weights; `gather` gives both their episodes."""

    modules: dict[str, Any]  # fsl, plain
    losses: dict[str, Callable[[Any], Any]]
    gather: Callable[[int], Any]
    precision: Any  # torch's type of what convolutions multiply


def workbench(algo: str, overrides: Sequence[str], channels: int = 1) -> Bench:
    import torch

    from fsl_cli.algorithms.maml import MAML
    from fsl_cli.backbones.conv4 import Conv4
    from fsl_cli.data.tasks import Batch
    from fsl_cli.doctor.plain_loop import PlainConv4, copy_weights, plain_maml, plain_protonet
    from fsl_cli.experiment.assemble import assemble
    from fsl_cli.settings.binding import demand_fit
    from fsl_cli.settings.parts import OfData, OfTrainer, asked
    from fsl_cli.settings.schema import Image

    settings = demand_fit(compose([f"algo={algo}", "data=glyphs", "trainer=cpu", *WORK[algo], *overrides]).values)
    if channels != 1 and (size := asked(settings.data, OfData).size):
        settings = settings.having(image=Image(channels, size, [0.5], [0.5]))
    experiment = assemble(settings, ["train"])
    algorithm = experiment.learner.algorithm
    [backbone] = [module for module in algorithm.modules() if isinstance(module, Conv4)]
    way = settings.train_way if isinstance(algorithm, MAML) and isinstance(settings.train_way, int) else None
    stride, size = backbone.halve == "stride", experiment.image.size
    network = PlainConv4(backbone.block_channels[0], stride, way, experiment.image.channels, size)
    copy_weights(algorithm, network)
    if isinstance(algorithm, MAML):
        norms_adapt = any(name.startswith("backbone.norms.") for name in algorithm.adapted)
        plain = plain_maml(network, algorithm.inner_lr, algorithm.inner_steps, norms_adapt, algorithm.first_order)
    else:
        plain = plain_protonet(network)

    def gather(index: int) -> Any:
        first = index * settings.meta_batch
        batch = Batch("train", 0, list(range(first, first + settings.meta_batch)))
        return experiment.episodes.tasks.gather(batch, torch.device("cpu"))[0]

    precision = torch.bfloat16 if "bf16" in str(asked(settings.trainer, OfTrainer).precision) else torch.float32
    losses = {"fsl": algorithm.loss, "plain": plain}
    if precision == torch.bfloat16:
        losses = {name: torch.autocast("cpu", precision)(loss) for name, loss in losses.items()}
    return Bench({"fsl": algorithm, "plain": network}, losses, gather, precision)


def trained(backward: Callable[[Any], None], module: Any) -> Step:
    """A training step: `backward` leaves the episodes' meta-gradient in the module."""
    import torch

    optimizer = torch.optim.Adam(module.parameters(), 1e-3)

    def step(episodes: Any) -> None:
        optimizer.zero_grad()
        backward(episodes)
        optimizer.step()

    return step


def _backward(loss: Callable[[Any], Any], episodes: Any) -> None:
    loss(episodes).backward()


def _steps(bench: Bench) -> dict[str, Step]:
    from fsl_cli.experiment.allocator import keep_memory

    keep_memory()
    losses = bench.losses
    return {name: trained(partial(_backward, losses[name]), bench.modules[name]) for name in losses}
