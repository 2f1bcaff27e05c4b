"""The losses of one task over the plane through a learned start and two ends of inner loops.

The fast weights alone move in the plane; whatever else the method has is as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fsl_cli.algorithms.base import Algorithm, TakesSteps
from fsl_cli.algorithms.inner_loop import Parameters, Watch, watching
from fsl_cli.episodes import Episodes, task_loss
from fsl_cli.errors import UserError
from fsl_cli.pictures.landscape import Landscape

GRID = 25  # points along each side
MARGIN = 0.25  # of what the points and paths take up, on each side
LONGER = 10  # times the steps of a test, where there is no other run


class Losses(NamedTuple):
    support: float
    query: float


def walk(algorithm: Algorithm, episodes: Episodes, name: str, times: int = 1) -> list[Parameters]:
    """The fast weights of one task before the first step of a test, and after each; of `times` as many steps.

    Raises UserError where the method, of this name, takes none.
    """
    watch = Watch()
    if isinstance(algorithm, TakesSteps):
        steps = algorithm.test_steps
        algorithm.test_steps = steps * times
        try:
            with torch.no_grad(), watching(watch):
                algorithm.classifier(episodes)(episodes.query.x)
        finally:
            algorithm.test_steps = steps
    if len(watch.path) < 2:
        raise UserError(
            f"algo={name} has no inner loop of gradient steps, or takes none here. fsl show landscape is for "
            "methods that adapt weights so, such as algo=maml or anil, with algo.test_steps=1 or more."
        )
    return watch.path


def losses_at(algorithm: Algorithm, episodes: Episodes, fast: Parameters) -> Losses:
    """Of one task, with these fast weights in place of those that the inner loop would find."""
    with torch.no_grad(), watching(Watch(ended=fast)):
        classify = algorithm.classifier(episodes)
        found = [float(task_loss(classify(each.x), each.y)) for each in (episodes.support, episodes.query)]
    return Losses(*found)


def demand_same_weights(own: Parameters, other: Parameters, folder: Path | str) -> None:
    """Raises UserError where another run adapts other weights."""
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in other.items()}:
        counts = [sum(value.numel() for value in each.values()) for each in (other, own)]
        raise UserError(
            f"other={folder}: it adapts {counts[0]:,} numbers in {len(other)} tensors, this run {counts[1]:,} in "
            f"{len(own)}. Choose a run with the same backbone, way, and kind of inner loop."
        )


def landscape(
    algorithm: Any, episodes: Episodes, own: list[Parameters], other: list[Parameters], names: tuple[str, str]
) -> Landscape:
    """Both losses over the plane through the start of `own` and the ends of both paths, which are projected onto it.

    Raises UserError where the three lie on a line.
    """
    start = _vector(own[0])
    first, second = _vector(own[-1]) - start, _vector(other[-1]) - start
    u = first / first.norm()
    second = second - (second @ u) * u
    v = second / second.norm()
    if not (u.isfinite().all() and v.isfinite().all()) or second.norm() < 1e-6 * first.norm():
        raise UserError(
            "The start and both ends lie on a line, and there is no plane through them. Type other=DIR with a run of "
            "another seed."
        )
    paths = [[_place(weights, start, u, v) for weights in path] for path in (own, other)]
    points = [*paths[0], *paths[1]]
    along, across = (_ticks([point[axis] for point in points]) for axis in (0, 1))
    shapes = {name: value.shape for name, value in own[0].items()}
    rows = [[losses_at(algorithm, episodes, _weights(start + x * u + y * v, shapes)) for x in along] for y in across]
    return Landscape(
        along=along,
        across=across,
        support=[[point.support for point in row] for row in rows],
        query=[[point.query for point in row] for row in rows],
        paths=dict(zip(names, paths, strict=True)),
    )


def _place(weights: Parameters, start: Tensor, u: Tensor, v: Tensor) -> tuple[float, float]:
    away = _vector(weights) - start
    return float(away @ u), float(away @ v)


def _ticks(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    room = MARGIN * (high - low)
    return torch.linspace(low - room, high + room, GRID).tolist()


def _vector(weights: Parameters) -> Tensor:
    return torch.cat([weights[name].reshape(-1).double() for name in sorted(weights)])


def _weights(vector: Tensor, shapes: dict[str, torch.Size]) -> Parameters:
    names = sorted(shapes)
    parts = vector.to(torch.get_default_dtype()).split([shapes[name].numel() for name in names])
    return {name: part.view(shapes[name]) for name, part in zip(names, parts, strict=True)}
