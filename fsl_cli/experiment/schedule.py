"""How the outer learning rate falls."""

from __future__ import annotations

from typing import Annotated, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, StepLR

from fsl_cli.ranges import Count, Natural, Range


def schedule(
    optimizer: Optimizer,
    kind: Literal["none", "step", "table", "linear", "cosine"],
    steps: Natural,
    every: Count = 2000,
    factor: Annotated[float, Range(above=0, most=1)] = 0.5,
    table: Annotated[dict[int, float], Range(above=0)] | None = None,
) -> LRScheduler:
    """`step`: times `factor` every `every` meta-iterations; `linear`, `cosine`: to 0 in `steps`; `none`: constant.

    `table`: from each meta-iteration in `table` on, its entry times the rate of the beginning.
    """
    if kind == "step":
        return StepLR(optimizer, every, factor)
    if kind == "table":
        entries = {0: 1.0, **(table or {})}
        return LambdaLR(optimizer, lambda step: entries[max(start for start in entries if start <= step)])
    if kind == "linear":
        return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / max(steps, 1)))
    if kind == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    return LambdaLR(optimizer, lambda step: 1.0)
